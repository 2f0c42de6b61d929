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
