//! The two readers of the outbox; each may end between arming and noting that it is done.

use std::time::Duration;

use homing::store::{
    outbox::{self, AgedRow},
    push::arm::{Graces, Pass, arm},
};
use rand::{Rng as _, rngs::SmallRng};
use sqlx::{Connection, PgConnection};

use crate::setting_up::{ROUTES, START};

pub(crate) const GRACES: Graces = Graces {
    offline: Duration::from_secs(1),
    connected: Duration::from_secs(8),
    elsewhere: Duration::from_secs(15),
    repeat: Duration::from_secs(10),
};
/// Rows that are read at once.
const ROWS_MAX: usize = 100;
/// How long a fact is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug)]
pub(crate) struct Consumer {
    name: &'static str,
    pass: Pass,
    age: Duration,
    /// How many rows it has passed.
    passed: usize,
}

impl Consumer {
    pub(crate) fn both() -> [Self; 2] {
        [
            ("push-early", Pass::Early, GRACES.offline),
            ("push-late", Pass::Late, GRACES.connected),
        ]
        .map(|(name, pass, age)| Self {
            name,
            pass,
            age,
            passed: 0,
        })
    }

    /// `rows`: when each row of the outbox was committed.
    pub(crate) async fn step(
        &mut self,
        conn: &mut PgConnection,
        at: i64,
        faults: f64,
        rows: &[i64],
        rng: &mut SmallRng,
    ) {
        loop {
            let age = i64::try_from(self.age.as_millis()).unwrap();
            let old = |committed: &&i64| **committed + age <= at;
            let waiting = rows[self.passed..].iter().take_while(old).count();
            if waiting == 0 {
                return;
            }
            let page = self.read(conn, at, waiting.min(ROWS_MAX)).await;
            let mut tx = conn.begin().await.unwrap();
            let routes = ROUTES.map(str::to_owned);
            let armed = arm(
                &mut tx,
                &page,
                self.pass,
                &GRACES,
                &routes,
                Some(START + at),
            );
            assert_eq!(armed.await.unwrap().skipped, 0);
            match rng.random_range(0.0..1.0) {
                // It ends, and all is rolled back; or all but its place, as if it were two.
                chance if chance < faults / 2.0 => return,
                chance if chance < faults => return tx.commit().await.unwrap(),
                _ => {}
            }
            let last = page.last().unwrap().place;
            outbox::advance(&mut tx, self.name, last).await.unwrap();
            tx.commit().await.unwrap();
            self.passed += page.len();
        }
    }

    /// Reads so many rows; a transaction of another test may hold them back for a while.
    async fn read(&self, conn: &mut PgConnection, at: i64, count: usize) -> Vec<AgedRow> {
        let enough = async {
            loop {
                let at = Some(START + at);
                let limit = i64::try_from(ROWS_MAX).unwrap();
                let page = outbox::read_older_than(conn, self.name, limit, self.age, at);
                let page = page.await.unwrap();
                if page.len() >= count {
                    return page;
                }
            }
        };
        tokio::time::timeout(PATIENCE, enough)
            .await
            .expect("the rows should become readable")
    }
}
