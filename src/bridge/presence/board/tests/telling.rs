//! What is told when, and to whom.

use super::*;

#[test]
fn changes_are_told_as_they_happen() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    assert!(stage.told().is_empty());
    stage.pass(SECOND * 2);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.told(), [(20, Presence::Active)]);
    stage.connect(ALICE, TABLET);
    stage.leave(ALICE, TABLET);
    assert!(stage.pass(SECOND * 100).is_empty());
}

#[test]
fn of_many_changes_the_last_one_is_told() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    for _ in 0..10 {
        stage.say(PHONE, Activity::Active);
        stage.say(PHONE, Activity::Background);
    }
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.pass(SECOND * 60), [(2, Presence::Active)]);
    // There and back again before the interval is over: nothing happened.
    stage.say(PHONE, Activity::Background);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.say(PHONE, Activity::Active);
    stage.say(PHONE, Activity::Background);
    assert!(stage.pass(SECOND * 60).is_empty());
}

#[test]
fn who_may_not_see_is_told_nothing_and_watches_no_more() {
    let mut stage = Stage::watching();
    stage.watch(CAROL, &[ALICE]);
    stage.blind.insert(BOB.0);
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(30, Presence::Background)]);
    stage.blind.clear();
    stage.pass(SECOND * 2);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.told(), [(30, Presence::Active)]);
    assert_eq!(stage.board.watches(), 1);
}

/// Goal: rights are asked for without the lock, and meanwhile the world goes on.
#[test]
fn who_comes_while_rights_are_judged_misses_nothing() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    let due = stage.board.due(1, stage.now).remove(0);
    assert_eq!(stage.watch(CAROL, &[ALICE]), [(Presence::Background, true)]);
    stage.say(PHONE, Activity::Active);
    let may_see = due.watchers.clone();
    let told = stage.board.tell(&due, SHOWN, &may_see, stage.now);
    assert_eq!(told.len(), 1);
    assert_eq!((told[0].way, told[0].presence), (20, Presence::Active));
    assert!(stage.told().is_empty(), "the interval is not over");
    stage.now += SECOND * 2;
    let both = [(20, Presence::Active), (30, Presence::Active)];
    assert_eq!(stage.told(), both);
}

#[test]
fn what_cannot_be_judged_is_told_later() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    let due = stage.board.due(9, stage.now).remove(0);
    stage.board.postpone(&due, stage.now + SECOND);
    assert!(stage.told().is_empty());
    assert_eq!(stage.pass(SECOND), [(1, Presence::Background)]);
}

/// Goal: a watch tells what has changed since its own answer, whatever others know.
#[test]
fn who_saw_what_was_never_told_is_told_that_it_is_over() {
    let mut stage = Stage::watching();
    stage.connect(ALICE, PHONE);
    assert_eq!(stage.told(), [(20, Presence::Background)]);
    stage.say(PHONE, Activity::Active);
    assert_eq!(stage.watch(CAROL, &[ALICE]), [(Presence::Active, true)]);
    stage.say(PHONE, Activity::Background);
    let told = stage.pass(SECOND * 9);
    assert_eq!(told, [(2, Presence::Background), (2, Presence::Background)]);
}

#[test]
fn what_is_told_says_how_long_the_watch_lasts() {
    let mut stage = Stage::watching();
    stage.now += SECOND * 600;
    stage.connect(ALICE, PHONE);
    let due = stage.board.due(9, stage.now).remove(0);
    let may_see = due.watchers.clone();
    let told = stage.board.tell(&due, SHOWN, &may_see, stage.now);
    assert_eq!(told[0].expires_in, SECOND * 3000);
}
