//! The offline run: capture files through the same engine as live traffic.

use std::path::Path;
use std::sync::Arc;

use indicatif::ProgressBar;

use crate::attribution::{Attribution, DeclaredOwners, Evidence, Process};
use crate::capture::offline::{Damage, Interface, OfflineError, Reader, Record};
use crate::engine::{Engine, Output};
use crate::packet::{Fragments, LinkType, Packet, decode, decode_common};
use crate::runtime::counts::FrameCounts;

/// An engine that is fed from files.
#[derive(Debug)]
pub struct Offline {
    engine: Engine,
    owners: Option<DeclaredOwners>,
    fragments: Fragments,
    counts: FrameCounts,
}

/// Packets that are handed to the engine together.
const BATCH: usize = 64;

impl Offline {
    /// Feeds `engine`; `owners` say whose flows are whose where the capture does not.
    pub fn new(engine: Engine, owners: Option<DeclaredOwners>) -> Self {
        Self { engine, owners, fragments: Fragments::default(), counts: FrameCounts::default() }
    }

    /// What was read so far.
    pub fn counts(&self) -> &FrameCounts {
        &self.counts
    }

    /// The engine, to look at.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Reads a whole file. What comes before damage counts; the damage comes back.
    ///
    /// # Errors
    /// Where the file cannot be opened or is no capture, and where `perform` fails.
    pub fn read<E: From<OfflineError>>(
        &mut self,
        path: &Path,
        progress: &ProgressBar,
        perform: &mut impl FnMut(Output) -> Result<(), E>,
    ) -> Result<Option<Damage>, E> {
        let mut reader = Reader::open(path)?;
        let mut interfaces = 0;
        while let Some(mut batch) = reader.next_batch() {
            let mut packets: Vec<Packet<'_>> = Vec::with_capacity(BATCH);
            while let Some(record) = batch.next() {
                let described = batch.interfaces();
                if described.len() > interfaces {
                    self.name_interfaces(interfaces, described);
                    interfaces = described.len();
                }
                self.counts.frames += 1;
                let is_owned = record.owner.is_some() || self.owners.is_some();
                if !is_owned && let Some(packet) = decode_common(&record.frame) {
                    // What is made elsewhere in memory and moved costs as much as its decoding.
                    packets.push(packet);
                    if let Some(packet) = packets.last_mut() {
                        self.counts.add(packet);
                        if packet.direction.is_some() {
                            self.orient(packet);
                        }
                    }
                } else {
                    self.take_other(&record, &mut packets);
                }
                if packets.len() >= BATCH {
                    self.engine.handle_packets(&packets);
                    packets.clear();
                }
            }
            self.engine.handle_packets(&packets);
            progress.set_position(reader.position());
            drain(&mut self.engine, perform)?;
        }
        Ok(reader.into_damage())
    }

    /// Says that there is no more data.
    ///
    /// # Errors
    /// Where `perform` fails.
    pub fn finish<E>(&mut self, perform: &mut impl FnMut(Output) -> Result<(), E>) -> Result<(), E> {
        self.engine.finish();
        drain(&mut self.engine, perform)
    }

    /// Takes a packet of an uncommon shape or with an owner.
    #[inline(never)]
    fn take_other<'a>(&mut self, record: &Record<'a>, packets: &mut Vec<Packet<'a>>) {
        let mut packet = match decode(&record.frame, &mut self.fragments) {
            Ok(packet) => packet,
            Err(error) => return self.counts.errors.record(error),
        };
        self.counts.add(&packet);
        self.orient(&mut packet);
        if let Some(owner) = self.owner_of(&mut packet, record.owner.clone()) {
            self.engine.handle_packets(packets);
            packets.clear();
            self.engine.handle_owned_packet(&packet, &owner);
            return;
        }
        packets.push(packet);
    }

    /// Notes the way a packet went. Where a capture says nothing of ways, the flow's first packet tells as much.
    fn orient(&self, packet: &mut Packet<'_>) {
        packet.direction = self.engine.settings().local.passage(&packet.five_tuple, packet.direction).way();
    }

    /// Tells the engine the names of the interfaces from `first` on.
    fn name_interfaces(&mut self, first: usize, interfaces: &[Interface]) {
        for (number, interface) in (0..).zip(interfaces).skip(first) {
            // Linux cooked v2 brings the index of another interface with each packet.
            if let (Some(name), false) = (&interface.name, interface.link_type == LinkType::LINUX_SLL2) {
                self.engine.handle_interface(number, name.as_str().into());
            }
        }
    }

    fn owner_of(&self, packet: &mut Packet<'_>, captured: Option<Arc<Process>>) -> Option<Attribution> {
        if let Some(process) = captured {
            return Some(Attribution::Known { process, evidence: Evidence::Capture });
        }
        let declared = self.owners.as_ref()?.owner(&packet.five_tuple, packet.direction, packet.timestamp)?;
        // The declaration says which end is local, which a capture without directions does not.
        packet.direction = Some(declared.direction);
        Some(Attribution::Known { process: Arc::clone(declared.process), evidence: Evidence::Declared })
    }
}

fn drain<E>(engine: &mut Engine, perform: &mut impl FnMut(Output) -> Result<(), E>) -> Result<(), E> {
    while let Some(output) = engine.poll_output() {
        perform(output)?;
    }
    Ok(())
}
