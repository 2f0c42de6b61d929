//! What is shown of a user, and for how long.

use super::*;

#[test]
fn the_most_active_device_counts() {
    use Activity::{Active, Away, Background};
    for (phone, tablet, shown) in [
        (None, None, Presence::HIDDEN),
        (Some(None), None, Presence::Background),
        (Some(Some(Active)), None, Presence::Active),
        (Some(Some(Background)), None, Presence::Background),
        (Some(Some(Away)), None, Presence::Background),
        (Some(Some(Away)), Some(Some(Active)), Presence::Active),
        (Some(Some(Active)), Some(None), Presence::Active),
        (Some(None), Some(Some(Background)), Presence::Background),
    ] {
        let mut stage = Stage::new(rules());
        for (device, says) in [(PHONE, phone), (TABLET, tablet)] {
            if let Some(says) = says {
                stage.connect(ALICE, device);
                if let Some(says) = says {
                    stage.say(device, says);
                }
            }
        }
        let look = stage.board.look(&target(ALICE), stage.now);
        assert_eq!(look, shown, "{phone:?} {tablet:?}");
    }
}

#[test]
fn being_active_is_a_lease() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.pass(SECOND * 300), [(0, Presence::Active)]);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.pass(SECOND * 700), [(900, Presence::Background)]);
}

/// Goal: a tunnel is no absence.
#[test]
fn who_comes_back_soon_was_never_offline() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    stage.pass(SECOND * 100);
    stage.leave(ALICE, PHONE);
    assert!(stage.pass(SECOND * 9).is_empty());
    let look = stage.board.look(&target(ALICE), stage.now);
    assert_eq!(look, Presence::Background);
    stage.connect(ALICE, PHONE);
    assert!(stage.pass(SECOND * 100).is_empty());
    stage.leave(ALICE, PHONE);
    assert_eq!(stage.pass(SECOND * 100), [(219, offline(209_000))]);
}

/// Goal: one invisible connection hides the user, and leaves no trace when it ends.
#[test]
fn an_invisible_connection_hides_its_user() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    stage.connect(ALICE, TABLET);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.told(), [(20, Presence::Active)]);
    stage.hide(TABLET, true);
    assert_eq!(stage.pass(SECOND * 9), [(2, Presence::HIDDEN)]);
    // Saying anything else does not end it.
    stage.say(TABLET, Activity::Active);
    assert!(stage.pass(SECOND * 9).is_empty());
    stage.hide(TABLET, false);
    assert_eq!(stage.told(), [(20, Presence::Active)]);
    stage.hide(TABLET, true);
    stage.leave(ALICE, PHONE);
    stage.leave(ALICE, TABLET);
    assert_eq!(stage.pass(SECOND * 99), [(20, Presence::HIDDEN)]);
    let look = stage.board.look(&target(ALICE), stage.now);
    assert_eq!(look, Presence::HIDDEN);
}

#[test]
fn what_users_do_not_want_to_be_known_is_not_told() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.settings.is_invisible = true;
    stage.board.must_look(ALICE, stage.now);
    assert_eq!(stage.pass(SECOND * 9), [(2, Presence::HIDDEN)]);
    stage.say(PHONE, Activity::Active);
    stage.leave(ALICE, PHONE);
    stage.connect(ALICE, PHONE);
    assert!(stage.pass(SECOND * 99).is_empty());

    stage.settings.is_invisible = false;
    stage.settings.tells_last_seen = false;
    stage.board.must_look(ALICE, stage.now);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.leave(ALICE, PHONE);
    assert_eq!(stage.pass(SECOND * 99), [(118, Presence::HIDDEN)]);
}

/// Goal: settings that nobody said have changed count all the same before anything is told.
#[test]
fn settings_are_those_of_the_moment_of_telling() {
    let mut stage = Stage::watching();
    stage.settings.is_invisible = true;
    stage.connect(ALICE, PHONE);
    stage.say(PHONE, Activity::Active);
    assert!(stage.pass(SECOND * 9).is_empty());
}

#[test]
fn those_who_went_are_remembered_and_the_store_knows_the_rest() {
    let mut stage = Stage::new(rules());
    let mut stored = target(ALICE);
    stored.last_seen_millis = Some(7);
    assert_eq!(stage.board.look(&stored, stage.now), offline(7));
    stage.board.watch(BOB, &[stored.clone()], stage.now);
    stage.connect(ALICE, PHONE);
    stage.now += SECOND;
    stage.leave(ALICE, PHONE);
    stage.watch(BOB, &[]);
    stage.now += SECOND * 10;
    assert_eq!(stage.board.look(&stored, stage.now), offline(1000));
    for user in 0..=i64::try_from(GONE_MAX).unwrap() {
        stage.connect(UserId(100 + user), PHONE);
        stage.leave(UserId(100 + user), PHONE);
    }
    assert_eq!(stage.board.look(&stored, stage.now), offline(7));
    assert_eq!(stage.board.people.len(), GONE_MAX + 2);
    assert!(stage.board.dues.is_empty());
}

#[test]
fn of_several_active_devices_the_last_lease_counts() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    stage.connect(ALICE, TABLET);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.pass(SECOND * 300), [(0, Presence::Active)]);
    stage.say(TABLET, Activity::Active);
    assert_eq!(stage.pass(SECOND * 700), [(900, Presence::Background)]);
}
