//! The store as the ledger of alerts and deliveries.

use std::collections::BTreeMap;
use std::sync::Arc;

use rusqlite::{OptionalExtension, Row, Transaction, TransactionBehavior, params};

use crate::alert::{
    AlertRecord, Change, Delivery, DeliveryState, DocumentKind, GivenUp, Ledger, LedgerError, Notification, Silence,
    Standing,
};
use crate::rule::Severity;
use crate::store::database::{Store, ledger_error};
use crate::time::Timestamp;

impl Ledger for Store {
    fn load(&mut self) -> Result<Standing, LedgerError> {
        let load = || -> rusqlite::Result<Standing> {
            // The groups that held them are gone with the last run.
            self.connection.execute("UPDATE deliveries SET state = 'waiting' WHERE state = 'held'", [])?;
            let next: i64 =
                self.connection
                    .query_row("SELECT COALESCE(MAX(sequence), 0) + 1 FROM deliveries", [], |row| row.get(0))?;
            let mut counted = self
                .connection
                .prepare("SELECT output, COUNT(*) FROM deliveries WHERE state = 'waiting' GROUP BY output")?;
            let waiting: BTreeMap<String, i64> =
                counted.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
            let mut kept = self.connection.prepare("SELECT document FROM silences ORDER BY id")?;
            let documents: Vec<String> = kept.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
            let mut firing = self.connection.prepare("SELECT * FROM alerts WHERE state = 'firing' ORDER BY key")?;
            Ok(Standing {
                next_sequence: u64::try_from(next).unwrap_or(1),
                waiting: waiting
                    .into_iter()
                    .map(|(output, count)| (output, u64::try_from(count).unwrap_or(0)))
                    .collect(),
                // A silence of a later version that this one cannot read silences nothing.
                silences: documents.iter().filter_map(|document| serde_json::from_str(document).ok()).collect(),
                firing: firing.query_map([], alert_record)?.collect::<Result<_, _>>()?,
                set_aside: self.set_aside.as_ref().map(|path| path.display().to_string()),
            })
        };
        load().map_err(ledger_error)
    }

    fn commit(&mut self, changes: &[Change]) -> Result<Vec<GivenUp>, LedgerError> {
        match self.write(changes) {
            Err(LedgerError::Damaged(reason)) => {
                let now = changes.iter().find_map(moment).unwrap_or_default();
                let aside = self.replace(now)?;
                self.write(changes)?;
                // The caller still holds everything that was not delivered, and will hear where the old one is.
                Err(LedgerError::Damaged(format!("{reason}; set aside as `{}`", aside.display())))
            }
            other => other,
        }
    }

    fn waiting(&mut self, output: &str, from: u64, most: usize) -> Result<Vec<Delivery>, LedgerError> {
        const SELECT: &str = "SELECT * FROM deliveries \
            WHERE output = ?1 AND state = 'waiting' AND sequence >= ?2 ORDER BY sequence LIMIT ?3";
        let read = || -> rusqlite::Result<Vec<Delivery>> {
            let mut statement = self.connection.prepare_cached(SELECT)?;
            statement.query_map(params![output, signed(from), signed(most as u64)], delivery)?.collect()
        };
        let read = read();
        self.noting(read)
    }

    fn deliveries(&mut self, state: DeliveryState, most: usize) -> Result<Vec<Delivery>, LedgerError> {
        const SELECT: &str = "SELECT * FROM deliveries WHERE state = ?1 ORDER BY sequence LIMIT ?2";
        // What was delivered has left a line and no bytes; the latest is what people look for.
        const DELIVERED: &str = "SELECT 0 AS sequence, id, output, key, kind, severity, created, x'' AS payload, \
            '' AS remaining, attempts, NULL AS last_error FROM delivered ORDER BY id DESC LIMIT ?1";
        let read = || -> rusqlite::Result<Vec<Delivery>> {
            if state == DeliveryState::Delivered {
                let mut statement = self.connection.prepare_cached(DELIVERED)?;
                return statement.query_map([signed(most as u64)], delivery)?.collect();
            }
            let mut statement = self.connection.prepare_cached(SELECT)?;
            statement.query_map(params![state_name(state), signed(most as u64)], delivery)?.collect()
        };
        let read = read();
        self.noting(read)
    }

    fn delivery(&mut self, id: &str) -> Result<Option<(DeliveryState, Delivery)>, LedgerError> {
        const SELECT: &str = "SELECT * FROM deliveries WHERE id = ?1";
        let read = self
            .connection
            .query_row(SELECT, [id], |row| Ok((state_of(&row.get::<_, String>("state")?), delivery(row)?)))
            .optional();
        self.noting(read)
    }

    fn alerts(&mut self, most: usize) -> Result<Vec<AlertRecord>, LedgerError> {
        const SELECT: &str = "SELECT * FROM alerts ORDER BY changed_at DESC, key LIMIT ?1";
        let read = || -> rusqlite::Result<Vec<AlertRecord>> {
            let mut statement = self.connection.prepare_cached(SELECT)?;
            statement.query_map([signed(most as u64)], alert_record)?.collect()
        };
        let read = read();
        self.noting(read)
    }

    fn check(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        let Some(damage) = self.finding() else { return Ok(()) };
        let aside = self.replace(now)?;
        Err(LedgerError::Damaged(format!("{damage}; set aside as `{}`", aside.display())))
    }

    fn limit(&mut self, max_bytes: u64) {
        self.limits.max_bytes = max_bytes;
    }

    fn fill(&self) -> f64 {
        self.bytes as f64 / self.limits.max_bytes.max(1) as f64
    }
}

impl Store {
    /// The outcome of reading; damage is remembered until the next check.
    fn noting<T>(&mut self, read: rusqlite::Result<T>) -> Result<T, LedgerError> {
        let read = read.map_err(ledger_error);
        if let Err(LedgerError::Damaged(reason)) = &read {
            self.suspicion = Some(reason.clone());
        }
        read
    }

    fn write(&mut self, changes: &[Change]) -> Result<Vec<GivenUp>, LedgerError> {
        let (limit, before) = (self.limits.max_bytes, self.bytes);
        let mut write = || -> rusqlite::Result<(Vec<GivenUp>, u64, Vec<Delivery>)> {
            let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut bytes = before;
            for change in changes {
                bytes = apply(&transaction, change, bytes)?;
            }
            let stranded = bury_stranded(&transaction, changes)?;
            let mut given_up = make_room(&transaction, &mut bytes, limit)?;
            let dead = buried(&transaction, changes, &stranded)?;
            given_up.extend(stranded);
            transaction.commit()?;
            Ok((given_up, bytes, dead))
        };
        let (given_up, bytes, dead) = write().map_err(ledger_error)?;
        self.bytes = bytes;
        for delivery in &dead {
            if let Err(error) = self.dead.append(delivery) {
                // The database still has it.
                tracing::warn!(%error, delivery = %delivery.id, "cannot write a dead letter to its file");
            }
        }
        if let Some(before) = changes.iter().find_map(pruned) {
            self.dead.prune(before);
        }
        Ok(given_up)
    }
}

/// Gives up what waited too long for an output that is not configured.
fn bury_stranded(transaction: &Transaction<'_>, changes: &[Change]) -> rusqlite::Result<Vec<GivenUp>> {
    const BURY: &str = "UPDATE deliveries SET state = 'dead', last_error = 'too old, and its output is not configured' \
        WHERE state = 'waiting' AND created < ?1 AND output NOT IN (SELECT value FROM json_each(?2)) \
        RETURNING output, id";
    let mut stranded = Vec::new();
    for change in changes {
        let Change::BuryStranded { outputs, before } = change else { continue };
        let outputs = serde_json::to_string(outputs).unwrap_or_default();
        let mut statement = transaction.prepare_cached(BURY)?;
        let given_up = statement.query_map(params![before.as_nanos(), outputs], |row| {
            Ok(GivenUp { output: row.get::<_, String>(0)?.into(), id: row.get::<_, String>(1)?.into() })
        })?;
        stranded.extend(given_up.collect::<Result<Vec<_>, _>>()?);
    }
    Ok(stranded)
}

/// The deliveries that these changes gave up.
fn buried(transaction: &Transaction<'_>, changes: &[Change], stranded: &[GivenUp]) -> rusqlite::Result<Vec<Delivery>> {
    const SELECT: &str = "SELECT * FROM deliveries WHERE id = ?1 AND state = 'dead'";
    let told = changes.iter().filter_map(|change| match change {
        Change::Bury(id, _) => Some(id),
        _ => None,
    });
    let mut statement = transaction.prepare_cached(SELECT)?;
    let mut dead = Vec::new();
    for id in told.chain(stranded.iter().map(|given_up| &given_up.id)) {
        dead.extend(statement.query_row([&**id], delivery).optional()?);
    }
    Ok(dead)
}

fn pruned(change: &Change) -> Option<Timestamp> {
    match change {
        Change::Prune(before) => Some(*before),
        _ => None,
    }
}

/// Writes one change and returns the bytes of all deliveries after it.
fn apply(transaction: &Transaction<'_>, change: &Change, bytes: u64) -> rusqlite::Result<u64> {
    match change {
        Change::Journal(notification, suppressed) => {
            journal(transaction, notification, suppressed.as_deref())?;
            Ok(bytes)
        }
        Change::Queue(delivery) => insert(transaction, delivery, DeliveryState::Waiting, bytes),
        Change::Hold(delivery) => insert(transaction, delivery, DeliveryState::Held, bytes),
        Change::Delivered(id, at) => {
            const LOG: &str = "INSERT OR REPLACE INTO delivered(id, output, key, kind, severity, created, attempts, at) \
                SELECT id, output, key, kind, severity, created, attempts + 1, ?2 FROM deliveries WHERE id = ?1";
            transaction.prepare_cached(LOG)?.execute(params![&**id, at.as_nanos()])?;
            apply(transaction, &Change::Forget(Arc::clone(id)), bytes)
        }
        Change::Forget(id) => {
            const DELETE: &str = "DELETE FROM deliveries WHERE id = ?1 RETURNING LENGTH(payload)";
            let freed: Option<i64> =
                transaction.prepare_cached(DELETE)?.query_row([&**id], |row| row.get(0)).optional()?;
            Ok(bytes.saturating_sub(freed.and_then(|freed| u64::try_from(freed).ok()).unwrap_or(0)))
        }
        Change::Retry { id, attempts, remaining, error } => {
            const UPDATE: &str = "UPDATE deliveries SET attempts = ?2, remaining = ?3, last_error = ?4 WHERE id = ?1";
            let remaining = remaining.join("\n");
            transaction.prepare_cached(UPDATE)?.execute(params![&**id, attempts, remaining, error])?;
            Ok(bytes)
        }
        Change::Shrink(id, payload) => {
            const LENGTH: &str = "SELECT LENGTH(payload) FROM deliveries WHERE id = ?1";
            let before: Option<i64> =
                transaction.prepare_cached(LENGTH)?.query_row([&**id], |row| row.get(0)).optional()?;
            let Some(before) = before.and_then(|before| u64::try_from(before).ok()) else { return Ok(bytes) };
            const UPDATE: &str = "UPDATE deliveries SET payload = ?2 WHERE id = ?1";
            transaction.prepare_cached(UPDATE)?.execute(params![&**id, &**payload])?;
            Ok(bytes.saturating_sub(before) + payload.len() as u64)
        }
        Change::Bury(id, error) => {
            const UPDATE: &str = "UPDATE deliveries SET state = 'dead', last_error = ?2 WHERE id = ?1";
            transaction.prepare_cached(UPDATE)?.execute(params![&**id, error])?;
            Ok(bytes)
        }
        Change::Revive { id, sequence, at } => {
            const UPDATE: &str = "UPDATE deliveries SET state = 'waiting', attempts = 0, sequence = ?2, created = ?3 \
                WHERE id = ?1";
            transaction.prepare_cached(UPDATE)?.execute(params![&**id, signed(*sequence), at.as_nanos()])?;
            Ok(bytes)
        }
        Change::Silence(silence) => {
            write_silence(transaction, silence)?;
            Ok(bytes)
        }
        Change::Acknowledge { key, by, at } => {
            const UPDATE: &str = "UPDATE alerts SET acknowledged_by = ?2, acknowledged_at = ?3 WHERE key = ?1";
            transaction.prepare_cached(UPDATE)?.execute(params![key, by, at.as_nanos()])?;
            Ok(bytes)
        }
        Change::Prune(before) => prune(transaction, *before, bytes),
        // All of them at once, when the others are written.
        Change::BuryStranded { .. } => Ok(bytes),
    }
}

fn insert(
    transaction: &Transaction<'_>,
    delivery: &Delivery,
    state: DeliveryState,
    bytes: u64,
) -> rusqlite::Result<u64> {
    // The same content has the same id: it is on its way already.
    const INSERT: &str = "INSERT OR IGNORE INTO deliveries\
        (sequence, id, output, key, kind, severity, created, payload, remaining, attempts, last_error, state) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let added = transaction.prepare_cached(INSERT)?.execute(params![
        signed(delivery.sequence),
        &*delivery.id,
        &*delivery.output,
        &*delivery.key,
        delivery.kind.name(),
        severity_number(delivery.severity),
        delivery.created.as_nanos(),
        &*delivery.payload,
        delivery.remaining.join("\n"),
        delivery.attempts,
        delivery.last_error,
        state_name(state),
    ])?;
    Ok(if added > 0 { bytes + delivery.payload.len() as u64 } else { bytes })
}

fn journal(
    transaction: &Transaction<'_>,
    notification: &Notification,
    suppressed: Option<&str>,
) -> rusqlite::Result<()> {
    const INSERT: &str = "INSERT INTO journal(at, kind, key, severity, summary, suppressed, document) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let document = serde_json::to_string(notification).unwrap_or_default();
    transaction.prepare_cached(INSERT)?.execute(params![
        notification.timestamp.as_nanos(),
        notification.kind.name(),
        notification.key(),
        severity_number(notification.severity()),
        notification.summary(),
        suppressed,
        document,
    ])?;
    let Some(alert) = &notification.alert else { return Ok(()) };
    const UPSERT: &str = "INSERT INTO alerts\
        (key, uid, rule, severity, state, changed_at, summary, suppressed, document, told) \
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?8 IS NULL) \
        ON CONFLICT(key) DO UPDATE SET \
            told = (uid = excluded.uid AND told) OR excluded.told, \
            acknowledged_by = CASE WHEN uid = excluded.uid THEN acknowledged_by END, \
            acknowledged_at = CASE WHEN uid = excluded.uid THEN acknowledged_at END, \
            uid = excluded.uid, severity = excluded.severity, state = excluded.state, \
            changed_at = excluded.changed_at, summary = excluded.summary, suppressed = excluded.suppressed, \
            document = excluded.document";
    transaction.prepare_cached(UPSERT)?.execute(params![
        &*alert.state.key,
        &*alert.state.uid,
        &*alert.rule.metadata.id,
        notification.severity().name(),
        alert.state.state,
        notification.timestamp.as_nanos(),
        notification.summary(),
        suppressed,
        document,
    ])?;
    Ok(())
}

fn write_silence(transaction: &Transaction<'_>, silence: &Silence) -> rusqlite::Result<()> {
    const INSERT: &str = "INSERT OR REPLACE INTO silences(id, ends_at, document) VALUES (?1, ?2, ?3)";
    let document = serde_json::to_string(silence).unwrap_or_default();
    let ends = silence.ends_at.map(Timestamp::as_nanos);
    transaction.prepare_cached(INSERT)?.execute(params![silence.id, ends, document])?;
    Ok(())
}

/// A bounded piece of history at a time, so that no commit takes long.
fn prune(transaction: &Transaction<'_>, before: Timestamp, bytes: u64) -> rusqlite::Result<u64> {
    let before = before.as_nanos();
    const JOURNAL: &str =
        "DELETE FROM journal WHERE number IN (SELECT number FROM journal WHERE at < ?1 ORDER BY at LIMIT 5000)";
    transaction.execute(JOURNAL, [before])?;
    const ALERTS: &str = "DELETE FROM alerts WHERE changed_at < ?1 AND state NOT IN ('firing', 'pending')";
    transaction.execute(ALERTS, [before])?;
    transaction.execute("DELETE FROM silences WHERE ends_at IS NOT NULL AND ends_at < ?1", [before])?;
    const LOG: &str = "DELETE FROM delivered WHERE id IN (SELECT id FROM delivered WHERE at < ?1 LIMIT 5000) \
        OR id < (SELECT id FROM delivered ORDER BY id DESC LIMIT 1 OFFSET ?2)";
    transaction.execute(LOG, params![before, MOST_LOGGED])?;
    const OLD: &str = "DELETE FROM deliveries WHERE created < ?1 RETURNING LENGTH(payload)";
    let mut statement = transaction.prepare_cached(OLD)?;
    let freed: Vec<i64> = statement.query_map([before], |row| row.get(0))?.collect::<Result<_, _>>()?;
    let freed: u64 = freed.into_iter().filter_map(|freed| u64::try_from(freed).ok()).sum();
    Ok(bytes.saturating_sub(freed))
}

/// Lines of the log of deliveries; older ones leave before their time.
const MOST_LOGGED: i64 = 200_000;

/// Makes room until the limit is kept: of what was given up before, then of the mildest, the oldest.
/// Critical ones stay: only their age ends them.
fn make_room(transaction: &Transaction<'_>, bytes: &mut u64, limit: u64) -> rusqlite::Result<Vec<GivenUp>> {
    const VICTIMS: &str = "DELETE FROM deliveries WHERE sequence IN \
        (SELECT sequence FROM deliveries WHERE severity < ?1 ORDER BY severity, sequence LIMIT 64) \
        RETURNING output, id, LENGTH(payload)";
    const DEAD: &str = "DELETE FROM deliveries WHERE sequence IN \
        (SELECT sequence FROM deliveries WHERE state = 'dead' ORDER BY sequence LIMIT 64) RETURNING LENGTH(payload)";
    while *bytes > limit {
        let mut statement = transaction.prepare_cached(DEAD)?;
        let freed: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        if freed.is_empty() {
            break;
        }
        for length in freed {
            *bytes = bytes.saturating_sub(u64::try_from(length).unwrap_or(0));
        }
    }
    let mut given_up = Vec::new();
    while *bytes > limit {
        let mut statement = transaction.prepare_cached(VICTIMS)?;
        let critical = severity_number(Severity::Critical);
        let victims: Vec<(String, String, i64)> = statement
            .query_map([critical], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        if victims.is_empty() {
            break;
        }
        for (output, id, length) in victims {
            *bytes = bytes.saturating_sub(u64::try_from(length).unwrap_or(0));
            given_up.push(GivenUp { output: output.into(), id: id.into() });
        }
    }
    Ok(given_up)
}

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    let text = |name: &str| row.get::<_, String>(name);
    let remaining = text("remaining")?;
    Ok(Delivery {
        sequence: u64::try_from(row.get::<_, i64>("sequence")?).unwrap_or(0),
        id: text("id")?.into(),
        output: text("output")?.into(),
        key: text("key")?.into(),
        kind: DocumentKind::from_name(&text("kind")?).unwrap_or(DocumentKind::Updated),
        severity: severity_of(row.get("severity")?),
        created: Timestamp::from_nanos(row.get("created")?),
        payload: row.get::<_, Vec<u8>>("payload")?.into(),
        remaining: remaining.lines().map(str::to_owned).collect(),
        attempts: row.get("attempts")?,
        last_error: row.get("last_error")?,
        message: None,
    })
}

fn alert_record(row: &Row<'_>) -> rusqlite::Result<AlertRecord> {
    let document: String = row.get("document")?;
    Ok(AlertRecord {
        key: row.get("key")?,
        uid: row.get("uid")?,
        rule: row.get("rule")?,
        severity: row.get("severity")?,
        state: row.get("state")?,
        changed_at: Timestamp::from_nanos(row.get("changed_at")?),
        summary: row.get("summary")?,
        suppressed: row.get("suppressed")?,
        told: row.get("told")?,
        acknowledged_by: row.get("acknowledged_by")?,
        document: serde_json::from_str(&document).unwrap_or_default(),
    })
}

fn moment(change: &Change) -> Option<Timestamp> {
    match change {
        Change::Journal(notification, _) => Some(notification.timestamp),
        Change::Queue(delivery) | Change::Hold(delivery) => Some(delivery.created),
        Change::Prune(at) | Change::Acknowledge { at, .. } | Change::Delivered(_, at) => Some(*at),
        _ => None,
    }
}

fn state_name(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Waiting => "waiting",
        DeliveryState::Held => "held",
        DeliveryState::Dead => "dead",
        DeliveryState::Delivered => "delivered",
    }
}

fn state_of(name: &str) -> DeliveryState {
    match name {
        "held" => DeliveryState::Held,
        "dead" => DeliveryState::Dead,
        _ => DeliveryState::Waiting,
    }
}

fn severity_number(severity: Severity) -> u8 {
    Severity::ALL.iter().position(|other| *other == severity).and_then(|at| u8::try_from(at).ok()).unwrap_or(0)
}

fn severity_of(number: u8) -> Severity {
    Severity::ALL.get(usize::from(number)).copied().unwrap_or_default()
}

/// SQLite's integers have a sign.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreLimits;
    use std::path::Path;

    #[test]
    fn what_was_committed_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        store
            .commit(&[Change::Queue(delivery(1, "a", Severity::High)), Change::Hold(delivery(2, "b", Severity::Low))])
            .unwrap();
        store.commit(&[Change::Queue(delivery(3, "c", Severity::Low)), Change::Forget("c".into())]).unwrap();
        let retry = Change::Retry {
            id: "a".into(),
            attempts: 2,
            remaining: vec!["x@example.org".into()],
            error: "451 later".into(),
        };
        store.commit(&[retry, Change::Bury("nobody".into(), String::new())]).unwrap();
        drop(store);
        let mut store = open(directory.path());
        let standing = store.load().unwrap();
        assert_eq!((standing.next_sequence, standing.waiting["soc"]), (3, 2), "what was held is free");
        let waiting = store.waiting("soc", 0, 10).unwrap();
        assert_eq!(waiting.iter().map(|delivery| &*delivery.id).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((waiting[0].attempts, waiting[0].remaining.as_slice()), (2, &["x@example.org".to_owned()][..]));
        assert_eq!(store.bytes, 200);
        store
            .commit(&[
                Change::Bury("a".into(), "550 no".into()),
                Change::Revive { id: "b".into(), sequence: 9, at: Timestamp::from_secs(5) },
            ])
            .unwrap();
        assert_eq!(store.delivery("a").unwrap().unwrap().0, DeliveryState::Dead);
        let files: Vec<_> = std::fs::read_dir(directory.path().join("outbox/dead")).unwrap().flatten().collect();
        let letter: serde_json::Value = serde_json::from_slice(&std::fs::read(files[0].path()).unwrap()).unwrap();
        assert_eq!((letter["id"].as_str(), letter["error"].as_str()), (Some("a"), Some("550 no")));
        assert_eq!(letter["payload"], "x".repeat(100));
        assert_eq!(store.waiting("soc", 9, 10).unwrap().len(), 1);
        assert_eq!(store.load().unwrap().next_sequence, 10);
        store.commit(&[Change::Delivered("b".into(), Timestamp::from_secs(9))]).unwrap();
        let log = store.deliveries(DeliveryState::Delivered, 10).unwrap();
        assert_eq!((log.len(), &*log[0].id, log[0].attempts), (1, "b", 1));
        assert_eq!(store.bytes, 100, "the log keeps no bytes");
    }

    #[test]
    fn what_waits_for_an_output_that_is_gone_is_kept_for_its_time_and_then_a_dead_letter() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let old = delivery(1, "old", Severity::High);
        let new = Delivery { created: Timestamp::from_secs(9), ..delivery(2, "new", Severity::High) };
        let other = Delivery { output: "mail".into(), ..delivery(3, "other", Severity::High) };
        store.commit(&[Change::Queue(old), Change::Queue(new), Change::Queue(other)]).unwrap();
        let bury = Change::BuryStranded { outputs: vec!["mail".into()], before: Timestamp::from_secs(5) };
        let given_up = store.commit(&[bury]).unwrap();
        assert_eq!(given_up, [GivenUp { output: "soc".into(), id: "old".into() }]);
        assert_eq!(store.waiting("soc", 0, 10).unwrap().len(), 1);
        assert_eq!(store.waiting("mail", 0, 10).unwrap().len(), 1);
        assert_eq!(store.delivery("old").unwrap().unwrap().0, DeliveryState::Dead);
        assert_eq!(std::fs::read_dir(directory.path().join("outbox/dead")).unwrap().count(), 1);
    }

    #[test]
    fn what_was_given_up_makes_room_before_what_waits() {
        let directory = tempfile::tempdir().unwrap();
        let limits = StoreLimits { max_bytes: 1_000 };
        let mut store = Store::open(directory.path(), limits, Timestamp::EPOCH).unwrap();
        let queue = |number| Change::Queue(delivery(number, &number.to_string(), Severity::Low));
        store.commit(&(0..10).map(queue).collect::<Vec<_>>()).unwrap();
        store.commit(&[Change::Bury("9".into(), "400".into())]).unwrap();
        assert_eq!(store.commit(&[queue(10)]).unwrap(), []);
        assert!(store.delivery("9").unwrap().is_none());
        assert_eq!(store.commit(&[queue(11)]).unwrap().len(), 11, "then the mildest go, in one handful");
    }

    #[test]
    fn alerts_that_fire_are_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let journal = |key: &str, state: &'static str, suppressed: Option<&str>| {
            let state = crate::alert::AlertState { key: key.into(), uid: "u".into(), state, ..Default::default() };
            let alert = crate::alert::Alert { state, ..Default::default() };
            let notification = Notification::of_alert(DocumentKind::Firing, Timestamp::from_secs(7), alert);
            Change::Journal(Arc::new(notification), suppressed.map(Into::into))
        };
        store.commit(&[journal("said", "firing", None), journal("said", "firing", Some("silence 1"))]).unwrap();
        store.commit(&[journal("held", "firing", Some("silence 1")), journal("over", "resolved", None)]).unwrap();
        let firing = open(directory.path()).load().unwrap().firing;
        let told: Vec<(&str, bool)> = firing.iter().map(|alert| (alert.key.as_str(), alert.told)).collect();
        assert_eq!(told, [("held", false), ("said", true)]);
    }

    #[test]
    fn the_mildest_and_oldest_make_room_and_critical_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let limits = StoreLimits { max_bytes: 100 * 100 };
        let mut store = Store::open(directory.path(), limits, Timestamp::EPOCH).unwrap();
        let severities = [Severity::Critical, Severity::Low, Severity::High];
        let all: Vec<Change> = (0..300u64)
            .map(|number| Change::Queue(delivery(number, &format!("{number}"), severities[number as usize % 3])))
            .collect();
        let given_up = store.commit(&all).unwrap();
        assert_eq!(given_up.len(), 200);
        assert!(given_up[..64].iter().all(|given| given.id.parse::<u64>().unwrap() % 3 == 1), "low ones first");
        assert!(given_up.iter().all(|given| given.id.parse::<u64>().unwrap() % 3 != 0));
        assert_eq!(store.bytes, 100 * 100);
    }

    #[test]
    fn a_damaged_database_is_set_aside_and_a_fresh_one_begun() {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path()));
        std::fs::write(directory.path().join("egret.db"), vec![0x5a; 8192]).unwrap();
        let mut store = open(directory.path());
        let aside = store.load().unwrap().set_aside.unwrap();
        assert!(Path::new(&aside).exists(), "{aside}");
        store.commit(&[Change::Queue(delivery(1, "a", Severity::High))]).unwrap();
        assert_eq!(store.waiting("soc", 0, 10).unwrap().len(), 1);
    }

    #[test]
    fn what_can_be_read_of_a_damaged_database_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let all: Vec<Change> = (1..=2_000)
            .map(|number| Change::Queue(delivery(number, &format!("{number:04}"), Severity::High)))
            .collect();
        store.commit(&all).unwrap();
        drop(store);
        let path = directory.path().join("egret.db");
        let mut content = std::fs::read(&path).unwrap();
        let middle = content.len() / 4096 / 2 * 4096;
        content[middle..middle + 4096].fill(0x5a);
        std::fs::write(&path, content).unwrap();
        let mut store = open(directory.path());
        let standing = store.load().unwrap();
        assert!(standing.set_aside.is_some());
        let left = store.waiting("soc", 0, 5_000).unwrap();
        assert!(left.len() >= 1_900, "only {} of 2000 are left", left.len());
        assert_eq!((&*left[0].id, standing.next_sequence), ("0001", 2_001), "from both ends");
        assert_eq!(store.bytes, left.len() as u64 * 100);
    }

    #[test]
    fn a_database_that_was_removed_or_replaced_while_it_was_open_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("egret.db");
        let mut store = open(directory.path());
        let now = Timestamp::from_secs(7);
        assert_eq!(store.check(now), Ok(()));
        std::fs::remove_file(&path).unwrap();
        let said = store.check(now).unwrap_err().to_string();
        assert!(said.contains("the file was removed"), "{said}");
        assert_eq!(store.check(now), Ok(()));
        store.commit(&[Change::Queue(delivery(1, "a", Severity::High))]).unwrap();
        std::fs::write(directory.path().join("new"), vec![0x5a; 8192]).unwrap();
        std::fs::rename(directory.path().join("new"), &path).unwrap();
        assert!(matches!(store.check(now), Err(LedgerError::Damaged(_))));
        store.commit(&[Change::Queue(delivery(2, "b", Severity::High))]).unwrap();
        drop(store);
        assert_eq!(
            open(directory.path()).waiting("soc", 0, 10).unwrap().len(),
            2,
            "the log held what the file did not"
        );
    }

    #[test]
    fn alerts_and_silences_are_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut store = open(directory.path());
        let alert = |state: &'static str| {
            let state = crate::alert::AlertState { key: "k".into(), uid: "u".into(), state, ..Default::default() };
            let alert = crate::alert::Alert { state, ..Default::default() };
            Arc::new(Notification::of_alert(DocumentKind::Firing, Timestamp::from_secs(7), alert))
        };
        store.commit(&[Change::Journal(alert("firing"), Some("silence 1".into()))]).unwrap();
        let at = Timestamp::from_secs(8);
        store.commit(&[Change::Acknowledge { key: "k".into(), by: "alice".into(), at }]).unwrap();
        store.commit(&[Change::Journal(alert("resolved"), None)]).unwrap();
        let alerts = store.alerts(10).unwrap();
        assert_eq!((alerts.len(), alerts[0].state.as_str()), (1, "resolved"));
        assert_eq!(alerts[0].acknowledged_by.as_deref(), Some("alice"), "of the same episode");
        assert!(alerts[0].told, "the end was said");
        store.commit(&[Change::Prune(Timestamp::from_secs(100))]).unwrap();
        assert!(store.alerts(10).unwrap().is_empty());
    }

    fn open(directory: &Path) -> Store {
        Store::open(directory, StoreLimits::default(), Timestamp::from_secs(1)).unwrap()
    }

    fn delivery(sequence: u64, id: &str, severity: Severity) -> Delivery {
        Delivery {
            sequence,
            id: id.into(),
            output: "soc".into(),
            key: "k".into(),
            kind: DocumentKind::Firing,
            severity,
            created: Timestamp::from_secs(1),
            payload: vec![b'x'; 100].into(),
            remaining: Vec::new(),
            attempts: 0,
            last_error: None,
            message: None,
        }
    }
}
