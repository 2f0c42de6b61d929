//! What stands for the broker: it drives sessions as the connection task does.

use homing::{
    domain::{
        message::{Content, Position},
        topic::PublishTopic,
    },
    mqtt::{
        inflight::Settled,
        packet::{Packet, PacketId},
        publishes::{Ticket, Verdict},
        reason::ReasonCode,
        session::{self, Action, Remembered, Session, SubscriptionChange, granted_expiry},
        subscriptions::Subscriptions,
    },
};
use rand::Rng as _;

use crate::{
    LIMITS,
    connection::{Connection, Event, Operation},
    invariants::{Check, Tap, Watch, Who, ensure, place},
    link::take,
    log::{Device, Job, Stored, covers, device_id},
    world::{Gathered, World},
};

impl World {
    /// Drives one connection as far as chance lets it.
    pub(crate) fn drive(&mut self, place: usize) -> Check {
        let mut connection = self.connections.remove(place);
        let driven = if connection.connect.is_some() {
            self.open(&mut connection)
        } else if connection.session.is_none() {
            self.greet(&mut connection)
        } else {
            self.converse(&mut connection)
        };
        driven.map_err(|what| format!("connection {}: {what}", connection.id))?;
        if connection.has_ended {
            self.close(connection)
        } else {
            self.connections
                .insert(place.min(self.connections.len()), connection);
            Ok(())
        }
    }

    fn hear(&mut self, connection: &mut Connection) {
        let link = &mut self.links[connection.link];
        let bytes = take(&mut link.up, self.rng.random_range(0..200));
        connection.inbound.extend_from_slice(&bytes);
        if link.is_cut && link.up.is_empty() && self.rng.random_bool(0.3) {
            connection.has_ended = true;
        }
    }

    fn greet(&mut self, connection: &mut Connection) -> Check {
        self.hear(connection);
        let packet = connection.decoder.decode(&mut connection.inbound);
        if let Some(packet) = packet.map_err(|error| format!("no CONNECT: {error}"))? {
            let Packet::Connect(connect) = packet else {
                return Err(format!("{packet:?} is no CONNECT"));
            };
            connection.connect = Some(connect);
            connection.has_ended = false;
        }
        Ok(())
    }

    /// The older connection of the device goes first; then this one listens, and only then
    /// is the session read.
    fn open(&mut self, connection: &mut Connection) -> Check {
        let Some(connect) = connection.connect.take() else {
            return Ok(());
        };
        let device: Device = connect.client_id.parse().unwrap();
        if connection.device.is_none() {
            let older = self
                .connections
                .iter()
                .position(|other| other.device == Some(device));
            let Some(older) = older else {
                connection.device = Some(device);
                connection.connect = Some(connect);
                return Ok(());
            };
            connection.connect = Some(connect);
            return if self.connections[older].session.is_some() {
                self.take_over(older)
            } else {
                self.drive(older)
            };
        }
        let limits = self.limits.clone();
        let is_persistent = granted_expiry(&connect, &limits) > 0;
        let user = self.phones[device].user;
        let stored = &mut self.stored[device];
        let is_present = stored.open(connect.clean_start, is_persistent);
        connection.generation = stored.generation;
        let subscriptions: Subscriptions = stored
            .subscriptions
            .clone()
            .map_or_else(Subscriptions::default, |json| {
                serde_json::from_value(json).unwrap()
            });
        connection.coverage = subscriptions.coverage();
        let pending = stored.pending(&self.log, user, &connection.coverage);
        let remembered = Remembered {
            is_present,
            subscriptions: subscriptions.clone(),
            inflight: stored.inflight.clone(),
            pending,
            ..Remembered::default()
        };
        if !is_present {
            self.watches[device] = Watch::new(self.watches[device].no_local);
        }
        self.check_subscriptions(device, is_present, &subscriptions)?;
        let interrupted = self.stored[device].inflight.iter();
        let interrupted = interrupted
            .map(|(position, id)| (place(*position), *id))
            .collect();
        let inflight_max = connect.receive_max.min(limits.inflight_max).get();
        let packet_bytes_max = connect.packet_bytes_max.map(std::num::NonZeroU32::get);
        let who = Who { user, device };
        connection.tap = Some(Tap::new(
            connect.version,
            who,
            packet_bytes_max,
            inflight_max,
            interrupted,
            self.now,
        ));
        let identity = session::Identity {
            device: device_id(device),
            token_expires: None,
        };
        let session = Session::open(&connect, identity, remembered, None, limits, self.now);
        connection.session = Some(session);
        Ok(())
    }

    /// What the device was told about its subscriptions is what comes back.
    fn check_subscriptions(
        &self,
        device: Device,
        is_present: bool,
        stored: &Subscriptions,
    ) -> Check {
        let phone = &self.phones[device];
        if is_present && phone.hello.is_persistent {
            for (filter, is_granted) in phone.certain() {
                ensure(stored.contains(filter) == is_granted, || {
                    format!("device {device}: {filter} is granted ({is_granted}) but not so stored")
                })?;
            }
        }
        Ok(())
    }

    fn take_over(&mut self, older: usize) -> Check {
        let mut connection = self.connections.remove(older);
        if let Some(session) = &mut connection.session {
            session.close(ReasonCode::SESSION_TAKEN_OVER, "taken over");
        }
        self.close(connection)
    }

    fn converse(&mut self, connection: &mut Connection) -> Check {
        let Some(session) = &mut connection.session else {
            return Ok(());
        };
        session.handle_timeout(self.now);
        if self.rng.random_bool(0.7) {
            for event in connection.mailbox.take() {
                match event {
                    Event::Verdict { ticket, verdict } => {
                        session.handle_verdict(Ticket(ticket), verdict);
                    }
                    Event::Commit {
                        conversation,
                        from,
                        to,
                        entries,
                    } => session.handle_notice(conversation, from, to, &entries),
                }
            }
        }
        self.operate(connection);
        self.observe(connection);
        self.perform(connection)?;
        self.hear(connection);
        self.decode(connection)?;
        self.perform(connection)?;
        self.write(connection)?;
        self.settle(connection)
    }

    fn decode(&mut self, connection: &mut Connection) -> Check {
        while let Some(session) = &mut connection.session
            && session.can_read(self.now)
            && let Some(packet) = connection
                .decoder
                .decode(&mut connection.inbound)
                .map_err(|error| format!("an honest device is not understood: {error}"))?
        {
            if let (Packet::PubAck { packet_id }, Some(tap)) = (&packet, &mut connection.tap) {
                let device = connection.device.unwrap();
                tap.acknowledged(*packet_id, &mut self.watches[device]);
            }
            if let Some(tap) = &mut connection.tap {
                tap.heard_at = self.now;
            }
            session.handle_packet(packet, self.now);
            self.observe(connection);
            self.perform(connection)?;
        }
        Ok(())
    }

    /// Notes where the log of a conversation ends that is covered from now on.
    fn observe(&mut self, connection: &mut Connection) {
        let (Some(session), Some(device)) = (&connection.session, connection.device) else {
            return;
        };
        let Some(tap) = &mut connection.tap else {
            return;
        };
        let coverage = session.subscriptions().coverage();
        if coverage != connection.coverage {
            for log in &self.log {
                if covers(&coverage, log.id) && !covers(&connection.coverage, log.id) {
                    self.watches[device].floors.insert(log.id, log.head());
                    tap.begin(log.id);
                }
            }
            connection.coverage = coverage;
        }
    }

    fn perform(&mut self, connection: &mut Connection) -> Check {
        let (Some(session), Some(device)) = (&mut connection.session, connection.device) else {
            return Ok(());
        };
        while let Some(action) = session.poll_action() {
            match action {
                Action::Accept {
                    ticket,
                    topic: PublishTopic::Send(conversation),
                    payload,
                } => {
                    let content = Content::from_json(&payload, LIMITS).unwrap();
                    let log = self
                        .log
                        .iter_mut()
                        .find(|log| log.id == conversation)
                        .unwrap();
                    let user = self.phones[device].user;
                    log.jobs.push_back(Job::Publish {
                        user,
                        device,
                        connection: connection.id,
                        ticket: ticket.0,
                        content: Box::new(content),
                    });
                }
                Action::Request(_) => unreachable!("no device asks for anything"),
                Action::Suspect(is_suspect) => {
                    if let Some(tap) = &mut connection.tap {
                        tap.suspected(is_suspect, self.now, self.limits.suspect_after)?;
                    }
                }
                Action::Accept { ticket, .. } => session.handle_verdict(ticket, Verdict::Done),
                Action::Persist(change) => {
                    connection.operations.push_back(Operation::Persist(change));
                }
                Action::Read(page) => connection.operations.push_back(Operation::Read(page)),
                Action::Remember(inflight) => {
                    self.gathered
                        .inflight
                        .insert(device, (connection.generation, inflight));
                }
                Action::Close { .. } => connection.has_ended = true,
            }
        }
        Ok(())
    }

    /// One step of the operation that runs: it ends in the store, or the session hears of it.
    fn operate(&mut self, connection: &mut Connection) {
        let (Some(session), Some(device)) = (&mut connection.session, connection.device) else {
            return;
        };
        if !self.rng.random_bool(0.5) {
            return;
        }
        let fails = self.rng.random_bool(self.failures);
        let next = match connection.operations.pop_front() {
            None => return,
            Some(Operation::Persist(change)) => {
                let is_stored = !fails && self.persist(device, connection.generation, &change);
                let coverage = if is_stored {
                    change.after
                } else {
                    change.before
                };
                Operation::Persisted {
                    is_stored,
                    coverage,
                }
            }
            Some(Operation::Read(page)) => {
                let log = self
                    .log
                    .iter()
                    .find(|log| log.id == page.conversation)
                    .unwrap();
                let user = self.phones[device].user;
                let entries = log.page(user, page.after, page.entries_max);
                Operation::Page(page, (!fails).then_some(entries))
            }
            Some(Operation::Persisted {
                is_stored,
                coverage,
            }) => {
                // Noted here, since the session goes on with the next request at once.
                connection.coverage = coverage;
                return session.handle_persisted(is_stored);
            }
            Some(Operation::Page(page, entries)) => {
                return session.handle_page(page, entries);
            }
        };
        connection.operations.push_front(next);
    }

    fn persist(&mut self, device: Device, generation: u64, change: &SubscriptionChange) -> bool {
        let (user, stored) = (self.phones[device].user, &mut self.stored[device]);
        if stored.generation != generation {
            return false;
        }
        stored.subscriptions = Some(serde_json::to_value(&change.subscriptions).unwrap());
        stored.cover(&self.log, user, &change.before, &change.after);
        let Watch {
            promised, floors, ..
        } = &mut self.watches[device];
        for log in &self.log {
            if !covers(&change.after, log.id) {
                promised.remove(&log.id);
            } else if !covers(&change.before, log.id) {
                promised.insert(log.id, log.head());
                floors.insert(log.id, log.head()); // where its cursor stands now
            }
        }
        true
    }

    fn write(&mut self, connection: &mut Connection) -> Check {
        self.look(connection)?;
        let Some(session) = &mut connection.session else {
            return Ok(());
        };
        let link = &mut self.links[connection.link];
        let room = if link.is_cut { usize::MAX } else { link.room() };
        let bytes = session
            .output()
            .len()
            .min(room)
            .min(self.rng.random_range(0..400));
        if bytes == 0 {
            return Ok(());
        }
        let written = session.output().split_to(bytes);
        connection.seen -= bytes;
        if !link.is_cut {
            link.down.extend(written.iter());
        }
        session.handle_written();
        self.look(connection)
    }

    /// Reads along what the session has put out since the last look.
    fn look(&mut self, connection: &mut Connection) -> Check {
        if let (Some(session), Some(device)) = (&mut connection.session, connection.device)
            && let Some(tap) = &mut connection.tap
        {
            let new = session.output()[connection.seen..].to_vec();
            connection.seen += new.len();
            tap.see(&new, &self.log, &mut self.watches[device])?;
        }
        Ok(())
    }

    fn settle(&mut self, connection: &mut Connection) -> Check {
        self.look(connection)?;
        let (Some(session), Some(device)) = (&mut connection.session, connection.device) else {
            return Ok(());
        };
        let user = self.phones[device].user;
        let settled = session.poll_settled().unwrap_or_default();
        let Some(tap) = &mut connection.tap else {
            return Ok(());
        };
        for Settled { position, .. } in settled {
            let log = self
                .log
                .iter()
                .find(|log| log.id == position.conversation)
                .unwrap();
            let (conversation, sequence) = place(position);
            let stored = self.stored[device]
                .cursors
                .get(&conversation)
                .copied()
                .unwrap_or(0);
            let watch = &self.watches[device];
            watch.check_cursor(Who { user, device }, log, stored, sequence)?;
            tap.settled((conversation, sequence))?;
            if session.is_persistent() {
                let reached = self
                    .gathered
                    .settled
                    .entry((device, conversation))
                    .or_insert(0);
                *reached = sequence.max(*reached);
            }
        }
        Ok(())
    }

    /// The end of a connection, by whatever cause but a crash.
    fn close(&mut self, mut connection: Connection) -> Check {
        let link = connection.link;
        let Some(device) = connection.device.filter(|_| connection.session.is_some()) else {
            self.links[link].close();
            return Ok(());
        };
        self.perform(&mut connection)?;
        self.settle(&mut connection)?;
        self.write(&mut connection)?;
        self.links[link].close();
        self.flush();
        if let (Some(session), Some(tap)) = (&connection.session, &connection.tap) {
            let unsettled: Vec<(Position, Option<PacketId>)> = session.unsettled();
            tap.check_remembered(&unsettled)?;
            let stored: &mut Stored = &mut self.stored[device];
            stored.close(connection.generation, session.is_persistent(), unsettled);
        }
        Ok(())
    }

    /// Writes cursors and windows that were gathered.
    pub(crate) fn flush(&mut self) {
        let gathered = std::mem::take(&mut self.gathered);
        for ((device, conversation), delivered) in gathered.settled {
            let log = self.log.iter().find(|log| log.id == conversation).unwrap();
            let user = self.phones[device].user;
            self.stored[device].settle(log, user, delivered);
        }
        for (device, (generation, inflight)) in gathered.inflight {
            let stored = &mut self.stored[device];
            if stored.generation == generation {
                stored.inflight = inflight;
            }
        }
    }

    /// The process dies: everything in memory is lost.
    pub(crate) fn crash(&mut self) {
        for connection in self.connections.drain(..) {
            self.links[connection.link].cut(&mut self.rng);
        }
        self.gathered = Gathered::default();
        for log in &mut self.log {
            log.forget();
        }
    }
}
