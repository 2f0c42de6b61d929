//! One message to a large group, which all read: how many frames does that cost its author, and how
//! soon after the last one are the counts exact?

use std::{iter, rc::Rc, time::Duration};

use anyhow::Context as _;
use serde_json::Value;
use tokio::{task::JoinSet, time};

use super::join_all;
use crate::{
    args::Receipts,
    client::{Client, ClientError},
    clock::{self, Nanos},
    inbox::Packet,
    report::{self, Cpu, Report},
    target::Topics,
    traffic::{Run, prepare},
    wire::{self, Session},
};

const AUTHOR: &str = "s";
const BUFFER_BYTES: usize = 1024;
/// Of the only packet that a connection publishes.
const PACKET_ID: [u8; 2] = [0, 2];

pub(crate) async fn run(run: Rc<Run>, args: &Receipts) -> anyhow::Result<Report> {
    run.target.homing().context("only Homing counts readers")?;
    let count = usize::try_from(args.readers)?;
    let names: Vec<String> = (0..count).map(|number| format!("r{number}")).collect();
    let all: Vec<String> = iter::once(AUTHOR.to_owned()).chain(names.clone()).collect();
    let topics = run.target.conversation("all", &all).await?;
    let receipts = topics.deliver.replace("/messages", "/receipts");
    let readers = prepare(count, |number| member(&run, &names[number], &topics.filter)).await?;
    let mut author = member(&run, AUTHOR, &receipts).await?;

    let cpu_before = run.target.server.cpu();
    let began = run.clock.now();
    publish(&mut author, &topics.publish, r#"{"id":"1","body":"hello"}"#).await?;
    let span = Duration::from_secs(args.seconds.into());
    let mut readings = JoinSet::new();
    for (number, client) in readers.into_iter().enumerate() {
        let (run, topics, receipts) = (Rc::clone(&run), topics.clone(), receipts.clone());
        let after = span * u32::try_from(number)? / args.readers;
        readings.spawn_local(async move { read(&run, client, &topics, &receipts, after).await });
    }
    let patience = span + Duration::from_nanos(run.patience);
    let counting = time::timeout(patience, counted(&run, &mut author, &receipts, count));
    let (readings, counted) = tokio::join!(join_all(readings), counting);
    let read: Result<Vec<_>, _> = readings.into_iter().collect();
    // Their connections end here, not before the author knows.
    let last = read?.into_iter().map(|(_, at)| at).max().unwrap_or(began);

    let used = cpu_before.until(run.target.server.cpu());
    let total = run.clock.now() - began;
    let mut report = Report::new("receipts", &run.target, count + 1, total);
    report.cpu = Some(Cpu::new(&run.target, used, total, Some(count as u64)));
    match counted {
        Ok(counted) => {
            let (frames, at) = counted?;
            report.receipts = Some(report::Receipts {
                frames,
                exact_after_seconds: clock::seconds(at.saturating_sub(last)),
            });
        }
        Err(_) => report
            .violations
            .push("the counts never became exact".to_owned()),
    }
    Ok(report)
}

async fn member(run: &Run, name: &str, filter: &str) -> anyhow::Result<Client> {
    let login = run.target.login(name)?;
    let address = run.target.address;
    let mut client = Client::connect(address, &login, Session::Clean, BUFFER_BYTES).await?;
    client.subscribe(filter).await?;
    Ok(client)
}

async fn publish(client: &mut Client, topic: &str, payload: &str) -> Result<(), ClientError> {
    let (mut packet, packet_id_at, _) = wire::publish(topic, payload.as_bytes());
    packet[packet_id_at..packet_id_at + 2].copy_from_slice(&PACKET_ID);
    client.out.extend_from_slice(&packet);
    client.flush().await
}

/// Acknowledges the message when it comes, and reads it later; says when that was.
async fn read(
    run: &Run,
    mut client: Client,
    topics: &Topics,
    receipts: &str,
    after: Duration,
) -> Result<(Client, Nanos), ClientError> {
    let due = time::Instant::now() + after;
    let seq = loop {
        let (mut seq, mut acknowledged) = (None, None);
        while let Some(packet) = client.inbox.take()? {
            if let Packet::Publish(publish) = packet {
                acknowledged = acknowledged.or(publish.packet_id);
                seq = member_of(publish.payload, &topics.deliver, publish.topic, "seq");
            }
        }
        if let Some(packet_id) = acknowledged {
            wire::puback(&mut client.out, packet_id);
            client.flush().await?;
        }
        match seq {
            Some(seq) => break seq,
            None => client.fill().await?,
        }
    };
    time::sleep_until(due).await;
    publish(&mut client, receipts, &format!("{{\"read\":{seq}}}")).await?;
    Ok((client, run.clock.now()))
}

fn member_of(payload: &[u8], topic: &str, on: &[u8], name: &str) -> Option<i64> {
    if on != topic.as_bytes() {
        return None;
    }
    let payload: Value = serde_json::from_slice(payload).ok()?;
    payload[name].as_i64()
}

/// The frames until all have read, and when that was known.
async fn counted(
    run: &Run,
    author: &mut Client,
    receipts: &str,
    readers: usize,
) -> Result<(u64, Nanos), ClientError> {
    let mut frames = 0;
    loop {
        while let Some(packet) = author.inbox.take()? {
            let Packet::Publish(publish) = packet else {
                continue;
            };
            if publish.topic != receipts.as_bytes() {
                continue;
            }
            frames += 1;
            let told: Value = serde_json::from_slice(publish.payload).unwrap_or_default();
            if told["counts"][0]["read"].as_u64() == Some(readers as u64) {
                return Ok((frames, run.clock.now()));
            }
        }
        author.fill().await?;
    }
}
