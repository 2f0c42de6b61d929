//! How a watch begins and ends, and how many there may be.

use super::*;

#[test]
fn a_watch_ends_unless_it_is_renewed() {
    let mut stage = Stage::watching();
    stage.pass(SECOND * 3000);
    stage.watch(BOB, &[ALICE]);
    stage.pass(SECOND * 3599);
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.pass(SECOND);
    stage.say(PHONE, Activity::Active);
    assert!(stage.pass(SECOND * 9).is_empty());
    assert_eq!(stage.board.watches(), 0);
}

#[test]
fn a_watch_replaces_the_one_before_and_ends_with_its_connection() {
    let mut stage = Stage::watching();
    stage.watch(BOB, &[CAROL.0]);
    stage.connect(ALICE, PHONE);
    assert!(stage.told().is_empty());
    stage.watch(BOB, &[ALICE, CAROL.0]);
    assert_eq!(stage.board.watches(), 2);
    stage.leave(BOB.0, BOB.1);
    stage.say(PHONE, Activity::Active);
    assert!(stage.told().is_empty());
    assert_eq!(stage.board.watches(), 0);
    // Who is not connected is answered and watches nothing.
    assert_eq!(stage.watch(BOB, &[ALICE]), [(Presence::Active, false)]);
    stage.connect(BOB.0, BOB.1);
    assert_eq!(stage.watch(BOB, &[ALICE]), [(Presence::Active, true)]);
    assert!(stage.watch(BOB, &[]).is_empty());
    assert_eq!(stage.board.watches(), 0);
}

/// Goal: past the bounds there is an answer that says so, and room comes back.
#[test]
fn there_is_a_bound_to_watchers_and_watches() {
    let mut stage = Stage::new(rules());
    let dave = (UserId(4), DeviceId(40));
    stage.connect(dave.0, dave.1);
    for (who, is_watched) in [(BOB, true), (CAROL, true), (dave, false), (BOB, true)] {
        assert_eq!(stage.watch(who, &[ALICE]), [(Presence::HIDDEN, is_watched)]);
    }
    let four = [UserId(5), UserId(6), UserId(7)];
    let answers = stage.watch(dave, &four);
    let watched: Vec<_> = answers.iter().map(|(_, is_watched)| *is_watched).collect();
    assert_eq!(watched, [true, true, false]);
    assert_eq!(stage.board.watches(), 4);
    stage.watch(BOB, &[]);
    stage.watch(dave, &[]);
    assert_eq!(stage.watch(dave, &[ALICE]), [(Presence::HIDDEN, true)]);
    // Leases that are over make room.
    stage.pass(SECOND * 3600);
    assert_eq!(stage.watch(BOB, &[ALICE]), [(Presence::HIDDEN, true)]);
}

/// Goal: nothing ever happens with those who are watched, and the watches are over all the same.
#[test]
fn watches_of_quiet_users_make_room_when_they_are_over() {
    let mut stage = Stage::new(rules());
    let quiet = [UserId(5), UserId(6), UserId(7), UserId(8)];
    stage.watch(BOB, &quiet);
    assert_eq!(stage.watch(CAROL, &[ALICE]), [(Presence::HIDDEN, false)]);
    stage.now += SECOND * 3600;
    assert_eq!(stage.watch(CAROL, &[ALICE]), [(Presence::HIDDEN, true)]);
    assert_eq!(stage.board.watches(), 1);
}

/// Goal: a connection that comes before its predecessor was seen to go begins without watches.
#[test]
fn a_new_connection_of_a_device_watches_nothing() {
    let mut stage = Stage::watching();
    stage.connect(BOB.0, BOB.1);
    assert_eq!(stage.board.watches(), 0);
    stage.connect(ALICE, PHONE);
    assert!(stage.told().is_empty());
}

/// Goal: whoever follows a stream of events watches, and is there as with a device.
#[test]
fn a_stream_watches_and_is_a_device_until_it_is_closed() {
    let mut stage = Stage::new(rules());
    let dora = UserId(9);
    let streams = [99, 98].map(|way| stage.board.stream_opened(dora, way, stage.now));
    assert_ne!(streams[0], streams[1]);
    let who = streams.map(|stream| (dora, stream));
    for who in who {
        assert_eq!(stage.watch(who, &[ALICE]), [(Presence::HIDDEN, true)]);
    }
    stage.connect(ALICE, PHONE);
    let both = [(98, Presence::Background), (99, Presence::Background)];
    assert_eq!(stage.told(), both);
    let look = |stage: &Stage| stage.board.look(&target(dora), stage.now);
    assert_eq!(look(&stage), Presence::Background);

    stage.leave(dora, streams[0]);
    assert_eq!(stage.board.watches(), 1);
    stage.pass(SECOND * 2);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.told(), [(98, Presence::Active)]);
    assert_eq!(stage.watch(who[0], &[ALICE]), [(Presence::Active, false)]);
    assert_eq!(look(&stage), Presence::Background);
    stage.leave(dora, streams[1]);
    stage.pass(SECOND * 10);
    assert_eq!(look(&stage), offline(2000));
}

#[test]
fn what_is_said_of_streams_is_said_of_all_of_them_and_of_no_device() {
    let mut stage = Stage::watching();
    let active = |stage: &mut Stage| {
        let (activity, now) = (Activity::Active, stage.now);
        stage.board.streams_state(ALICE, activity, None, now)
    };
    assert!(!active(&mut stage));
    stage.connect(ALICE, PHONE);
    assert!(!active(&mut stage));
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    let streams = [99, 98].map(|way| stage.board.stream_opened(ALICE, way, stage.now));
    assert!(active(&mut stage));
    for stream in streams {
        stage.pass(SECOND * 2);
        assert_eq!(
            stage.board.look(&target(ALICE), stage.now),
            Presence::Active
        );
        stage.leave(ALICE, stream);
    }
    assert_eq!(
        stage.board.look(&target(ALICE), stage.now),
        Presence::Background
    );
}
