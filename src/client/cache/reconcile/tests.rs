use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use super::*;
use crate::domain::ids::Subject;

fn members(value: Value) -> Members {
    match value {
        Value::Object(members) => members,
        other => panic!("{other}"),
    }
}

fn id(number: usize) -> ConversationId {
    ConversationId(Uuid::from_u128(u128::try_from(number).unwrap()))
}

/// What the server holds of a conversation, and what the device does.
#[derive(Clone, Debug)]
struct Case {
    version: i64,
    epoch: i64,
    first: i64,
    last: i64,
    is_removed: bool,
    is_foreign: bool,
    /// Since the device asked last.
    is_changed: bool,
    /// The version and the epoch of the row that the device shows.
    row: Option<(i64, i64)>,
    synced: Option<i64>,
}

impl Case {
    fn row(&self, number: usize) -> Value {
        if self.is_removed {
            return json!({"conversation": id(number), "version": self.version, "removed": true});
        }
        json!({"conversation": id(number), "version": self.version, "removed": false, "activity_at": number,
            "epoch": self.epoch, "first_seq": self.first, "last_seq": self.last})
    }

    /// As the server says it.
    fn difference(&self, number: usize, held: &Value) -> Option<Value> {
        if self.is_foreign {
            return Some(json!({"conversation": id(number), "unknown": true}));
        }
        let mut difference = json!({"conversation": id(number), "row": self.row(number)});
        let seq = held["seq"].as_i64();
        let mut differs = match held["version"].as_i64() {
            Some(version) => version != self.version,
            None => seq.is_none(),
        };
        if held["epoch"]
            .as_i64()
            .is_some_and(|epoch| epoch != self.epoch)
        {
            difference["gap"] = json!({"reason": "epoch", "href": "…"});
            differs = true;
        } else if seq > Some(self.last) {
            difference["gap"] = json!({"reason": "ahead", "href": "…"});
            differs = true;
        } else if seq.is_some_and(|seq| seq < self.last) {
            difference["behind"] = json!({"to": self.last});
            differs = true;
        }
        differs.then_some(difference)
    }
}

/// A device that holds what the cases say.
fn device(cases: &[Case]) -> (Inbox, Threads) {
    let (mut inbox, mut threads) = (Inbox::default(), Threads::new());
    inbox.begun(7);
    for (number, case) in cases.iter().enumerate() {
        let Some((version, epoch)) = case.row else {
            continue;
        };
        let known = Case {
            version,
            epoch,
            is_removed: false,
            ..case.clone()
        };
        inbox.apply(members(known.row(number)));
        if let Some(synced) = case.synced {
            let mut thread = Thread::new(Subject::new("me").unwrap());
            thread.page(synced);
            threads.insert(id(number), thread);
        }
    }
    (inbox, threads)
}

/// Answers at most `rows` differences, and pages of as many rows.
fn serve(cases: &[Case], question: &Question, rows: usize, as_of: i64) -> Members {
    let changed = |named: &[Value]| -> Vec<Value> {
        let all = cases.iter().enumerate();
        let changed = all.filter(|(_, case)| case.is_changed && !case.is_foreign);
        let rows = changed.map(|(number, case)| case.row(number));
        rows.filter(|row| !named.contains(&row["conversation"]))
            .collect()
    };
    let arguments = match question {
        Question::Changed(arguments) => {
            assert_eq!(arguments["changed_since"], 7);
            let from = arguments
                .get("after")
                .map_or(0, |after| after.as_str().unwrap().parse().unwrap());
            let all = changed(&[]);
            let to = all.len().min(from + rows);
            let mut page = members(json!({"as_of": as_of, "conversations": all[from..to]}));
            if to < all.len() {
                page.insert("next_after".into(), to.to_string().into());
            }
            return page;
        }
        Question::Differences(arguments) => arguments,
    };
    let held = arguments["conversations"].as_array().unwrap();
    assert!(held.len() <= 500);
    let number =
        |held: &Value| (0..cases.len()).find(|number| held["conversation"] == json!(id(*number)));
    let mut differences = Vec::new();
    let mut cut = None;
    for (place, held) in held.iter().enumerate() {
        let number = number(held).unwrap();
        let difference = cases[number].difference(number, held);
        if difference.is_some() && differences.len() == rows {
            cut = Some(place);
            break;
        }
        differences.extend(difference);
    }
    let mut answer = members(json!({"as_of": as_of}));
    if arguments.contains_key("since") {
        let named: Vec<_> = held
            .iter()
            .map(|held| held["conversation"].clone())
            .collect();
        let changed = changed(&named);
        if cut.is_none() {
            let some = changed.iter().take(rows);
            differences
                .extend(some.map(|row| json!({"conversation": row["conversation"], "row": row})));
        }
        if changed.len() > rows || cut.is_some() && !changed.is_empty() {
            answer.insert("more".into(), "/v1/inbox?changed_since=7".into());
        }
    }
    answer.extend(cut.map(|cut| ("unanswered_from".to_owned(), cut.into())));
    answer.insert("conversations".into(), differences.into());
    answer
}

/// Asks until nothing is left; each answer is lost once. How often it asked.
fn run(
    cases: &[Case],
    rows: usize,
    inbox: &mut Inbox,
    threads: &mut Threads,
) -> (usize, Vec<Told>) {
    let mut reconcile = Reconcile::new(inbox);
    let (mut asked, mut all) = (0, Vec::new());
    while let Some(question) = reconcile.question(inbox, threads) {
        assert_eq!(reconcile.question(inbox, threads).as_ref(), Some(&question));
        let as_of = 20 + i64::try_from(asked).unwrap();
        let answer = serve(cases, &question, rows, as_of);
        all.extend(reconcile.answer(answer, inbox, threads).unwrap());
        asked += 1;
    }
    (asked, all)
}

fn right() -> Case {
    Case {
        version: 5,
        epoch: 1,
        first: 1,
        last: 4,
        is_removed: false,
        is_foreign: false,
        is_changed: false,
        row: Some((5, 1)),
        synced: Some(4),
    }
}

/// Goal: 1,200 rows are three requests, the newest first; what is new comes with the last one.
#[test]
fn many_rows_are_asked_about_in_several_requests() {
    let mut cases = vec![right(); 1_200];
    cases[3].version = 6;
    cases[900].last = 9;
    cases.push(Case {
        row: None,
        synced: None,
        is_changed: true,
        ..right()
    });
    let (mut inbox, mut threads) = device(&cases);
    let Some(Question::Differences(first)) = Reconcile::new(&inbox).question(&inbox, &threads)
    else {
        panic!("no question");
    };
    let first = first["conversations"].as_array().unwrap();
    assert_eq!(first.len(), 500);
    let newest = json!({"conversation": id(1_199), "seq": 4, "version": 5, "epoch": 1});
    assert_eq!(first[0], newest);
    let (asked, told) = run(&cases, 100, &mut inbox, &mut threads);
    assert_eq!((asked, told.len()), (3, 1_201));
    let next = |number: usize| {
        let told = told.iter().find(|told| told.conversation == id(number));
        let told = told.unwrap();
        (told.applied, told.next, told.last_seq)
    };
    assert_eq!(next(3), (Applied::Changed, Next::Nothing, Some(4)));
    assert_eq!(next(4), (Applied::Stale, Next::Nothing, Some(4)));
    assert_eq!(
        next(900),
        (Applied::Stale, Next::Changes { since: 4 }, Some(9))
    );
    assert_eq!(next(1_200), (Applied::Changed, Next::Nothing, Some(4)));
    assert_eq!(inbox.rows().len(), 1_201);
    assert_eq!(inbox.as_of(), Some(20), "as of the first answer");
}

#[test]
fn what_is_no_answer_changes_nothing() {
    let cases = [right()];
    let (mut inbox, mut threads) = device(&cases);
    let mut reconcile = Reconcile::new(&inbox);
    let question = reconcile.question(&inbox, &threads);
    for answer in [json!({}), json!({"as_of": 9}), json!({"conversations": []})] {
        let answer = reconcile.answer(members(answer), &mut inbox, &mut threads);
        assert_eq!(answer, Err(NoAnswer));
    }
    assert_eq!(reconcile.question(&inbox, &threads), question);
    assert_eq!(inbox.as_of(), Some(7));
}

/// Goal: of a missed row only that row is asked for, and it is not missed any more.
#[test]
fn what_was_missed_is_asked_for_by_name() {
    let mut cases = vec![right(); 3];
    cases[1].row = None;
    cases[2].version = 9;
    let (mut inbox, mut threads) = device(&cases);
    for number in [1, 2] {
        let mut patch = members(cases[number].row(number));
        patch.insert("since_version".into(), 8.into());
        assert_eq!(inbox.apply(patch), Applied::Missed);
    }
    let mut reconcile = Reconcile::missed(&inbox);
    let question = reconcile.question(&inbox, &threads).unwrap();
    let named = json!({"conversations": [
        {"conversation": id(1)}, {"conversation": id(2), "seq": 4, "version": 5, "epoch": 1},
    ]});
    assert_eq!(question, Question::Differences(members(named)));
    let answer = serve(&cases, &question, 9, 30);
    reconcile.answer(answer, &mut inbox, &mut threads).unwrap();
    assert_eq!(reconcile.question(&inbox, &threads), None);
    assert_eq!((inbox.missed(), inbox.as_of()), (vec![], Some(7)));
    assert_eq!(inbox.rows().len(), 3);
}

/// An answer about one conversation whose thread holds the entries 1 to 3.
fn about(difference: &Value) -> (Told, Option<Question>, Threads) {
    let (mut inbox, mut threads) = device(&[Case {
        synced: Some(0),
        ..right()
    }]);
    let thread = threads.get_mut(&id(0)).unwrap();
    for seq in 1..4 {
        let entry = json!({"seq": seq, "id": seq.to_string(), "from": "ann", "type": "text"});
        thread.entry(members(entry));
    }
    let mut reconcile = Reconcile::new(&inbox);
    let Some(Question::Differences(arguments)) = reconcile.question(&inbox, &threads) else {
        panic!("no question");
    };
    let hash = threads[&id(0)].hash(9).unwrap();
    assert_eq!((hash.from, hash.to), (1, 3));
    assert_eq!(arguments["conversations"][0]["hash"], hash.json());
    let answer = members(json!({"as_of": 9, "conversations": [difference]}));
    let told = reconcile.answer(answer, &mut inbox, &mut threads).unwrap();
    let question = reconcile.question(&inbox, &threads);
    (told[0], question, threads)
}

#[test]
fn other_entries_are_dropped_and_read_again() {
    let row = Case { last: 3, ..right() }.row(0);
    let (told, question, threads) =
        about(&json!({"conversation": id(0), "row": row, "mismatch": true}));
    assert_eq!(told.next, Next::Anew(Wrong::Mismatch));
    assert!(threads.is_empty());
    assert_eq!(question, None);
}

/// Goal: that entries have been erased is no proof; what is left of them is asked about.
#[test]
fn a_hash_of_erased_entries_is_made_anew() {
    let case = Case {
        first: 3,
        last: 3,
        ..right()
    };
    let (told, question, threads) =
        about(&json!({"conversation": id(0), "row": case.row(0), "mismatch": true}));
    assert_eq!(told.next, Next::Nothing);
    let hash = threads[&id(0)].hash(9).unwrap();
    assert_eq!((hash.from, hash.to), (3, 3));
    let Some(Question::Differences(arguments)) = question else {
        panic!("no question");
    };
    assert_eq!(arguments["conversations"][0]["hash"], hash.json());
}

/// Goal: an answer of before a new epoch, that comes after it, says nothing.
#[test]
fn an_answer_of_an_older_epoch_changes_nothing() {
    let old = Case {
        version: 9,
        last: 9,
        ..right()
    };
    let (mut inbox, mut threads) = device(&[Case {
        row: Some((5, 2)),
        ..right()
    }]);
    let mut reconcile = Reconcile::new(&inbox);
    reconcile.question(&inbox, &threads);
    let answer = json!({"as_of": 9, "conversations": [{"conversation": id(0), "row": old.row(0)}]});
    let told = reconcile
        .answer(members(answer), &mut inbox, &mut threads)
        .unwrap();
    assert_eq!(
        (told[0].applied, told[0].next),
        (Applied::Stale, Next::Nothing)
    );
    assert_eq!(threads[&id(0)].gap(), None);
}

#[test]
fn the_hashes_of_one_request_are_no_more_than_the_server_looks_at() {
    let cases = vec![right(); 50];
    let (inbox, mut threads) = device(&cases);
    for thread in threads.values_mut() {
        for seq in 5..400 {
            let entry = json!({"seq": seq, "id": "x", "from": "ann", "type": "text"});
            thread.entry(members(entry));
        }
    }
    let Some(Question::Differences(arguments)) = Reconcile::new(&inbox).question(&inbox, &threads)
    else {
        panic!("no question");
    };
    let held = arguments["conversations"].as_array().unwrap();
    let count = |held: &Value| {
        held["hash"]["to"].as_i64().unwrap() - held["hash"]["from"].as_i64().unwrap() + 1
    };
    assert_eq!(held.iter().map(count).sum::<i64>(), 10_000);
}

fn any_case() -> impl Strategy<Value = Case> {
    let row = proptest::option::of((4..6_i64, 1..3_i64));
    let synced = proptest::option::of(0..8_i64);
    (0..6_i64, 1..5_i64, row, synced, 0..12_u8).prop_map(|(last, first, row, synced, what)| {
        let is_removed = what == 0;
        // A removal has a version of its own.
        let row = row.map(|(version, epoch)| (if is_removed { 4 } else { version }, epoch));
        // What the device does not know has changed since; so has a removal.
        let is_changed = row.is_none() || is_removed || what > 8;
        let epoch = if what == 2 {
            2
        } else {
            row.map_or(1, |(_, epoch)| epoch)
        };
        Case {
            version: 5,
            epoch: epoch.max(row.map_or(1, |(_, epoch)| epoch)),
            first: first.min(last + 1),
            last,
            is_removed,
            is_foreign: what == 1,
            is_changed,
            row,
            synced,
        }
    })
}

proptest! {
    /// Goal: however answers are cut, the device shows the rows of the server, and is told of each
    /// thread what it lacks, and of no other.
    #[test]
    fn however_answers_are_cut_all_of_it_is_told(
        cases in proptest::collection::vec(any_case(), 0..30),
        rows in 1..9_usize,
    ) {
        let (mut inbox, mut threads) = device(&cases);
        let opened: Vec<_> = threads.keys().copied().collect();
        let (_, told) = run(&cases, rows, &mut inbox, &mut threads);
        prop_assert!(inbox.as_of() >= Some(20));
        for (number, case) in cases.iter().enumerate() {
            let (case, id) = (case, id(number));
            let shown = inbox.row(id).map(|row| row.version);
            let is_there = !case.is_removed && !case.is_foreign;
            prop_assert_eq!(shown, is_there.then_some(5), "{:?}", case);
            let told: Vec<_> = told.iter().filter(|told| told.conversation == id).collect();
            prop_assert!(told.iter().all(|told| told.applied != Applied::Unreadable));
            let nexts: Vec<_> = told.iter().map(|told| told.next).filter(|next| *next != Next::Nothing).collect();
            if !opened.contains(&id) {
                prop_assert_eq!(nexts, vec![]);
            } else if !is_there {
                prop_assert_eq!(nexts, vec![Next::Gone]);
            } else if case.row.map(|(_, epoch)| epoch) != Some(case.epoch) {
                prop_assert_eq!(nexts, vec![Next::Anew(Wrong::Epoch)]);
            } else if case.synced > Some(case.last) {
                prop_assert_eq!(nexts, vec![Next::Anew(Wrong::Ahead)]);
            } else {
                let since = case.synced.unwrap().max(case.first - 1);
                let lacks = since < case.last;
                prop_assert_eq!(nexts.contains(&Next::Changes { since }), lacks, "{:?} {:?}", case, nexts);
                let is_other = |next: &Next| *next != Next::Changes { since };
                prop_assert!(!nexts.iter().any(is_other), "{:?} {:?}", case, nexts);
            }
        }
    }
}
