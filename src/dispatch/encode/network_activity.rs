//! A flow of an alert as a Network Activity event of the Open Cybersecurity Schema Framework.
//!
//! Class 4001 of the release that [`super::ocsf`] names, activity 6 (Traffic).
//! `traffic` is what passed since the flow was told last. That release has no
//! `cumulative_traffic` yet: what passed since the flow began stands under this
//! name in `unmapped`.

use serde_json::{Map, Value as Json, json};

use crate::alert::{Alert, Network, Notification, Origin};
use crate::dispatch::encode::ocsf::{self, set};
use crate::flow::{Counters, FlowKey};

/// Network Activity: Traffic.
pub const TYPE_UID: u64 = 400_106;

/// The event of one flow.
pub(super) fn event(notification: &Notification, alert: &Alert, origin: &Origin) -> Json {
    let Some(flow) = alert.flows.first() else { return Json::Null };
    let mut metadata = ocsf::metadata(notification);
    metadata["uid"] = json!(&*flow.uid);
    // The finding that it belongs to has the same one.
    metadata["correlation_uid"] = json!(&*alert.state.uid);
    let mut event = json!({
        "class_uid": 4001,
        "class_name": "Network Activity",
        "category_uid": 4,
        "category_name": "Network Activity",
        "activity_id": 6,
        "activity_name": "Traffic",
        "type_uid": TYPE_UID,
        "type_name": "Network Activity: Traffic",
        "time": notification.timestamp.as_millis(),
        "start_time": flow.first.as_millis(),
        "end_time": flow.last.as_millis(),
        "duration": flow.last.as_millis() - flow.first.as_millis(),
        "severity_id": 1,
        "severity": "Informational",
        "message": notification.summary(),
        "metadata": metadata,
        "device": ocsf::device(origin),
        "traffic": traffic(&flow.passed),
        "unmapped": {
            "cumulative_traffic": traffic(&flow.total),
            "left_out_traffic": traffic(&flow.left_out),
            "state": flow.state.name(),
            "alert": {"uid": &*alert.state.uid, "key": &*alert.state.key},
            "rule": &*alert.rule.metadata.id,
        },
    });
    let Json::Object(event) = &mut event else { return Json::Null };
    set(event, "src_endpoint", ocsf::source(alert));
    set(event, "dst_endpoint", alert.destination.as_ref().map(ocsf::destination));
    set(event, "connection_info", alert.network.as_ref().map(|network| connection(network, &flow.key)));
    set(event, "actor", actor(alert));
    Json::Object(std::mem::take(event))
}

fn connection(network: &Network, key: &FlowKey) -> Json {
    let mut connection = ocsf::connection(network);
    let version = if key.remote.address.ip().is_ipv4() { 4 } else { 6 };
    connection["protocol_num"] = json!(key.protocol.0);
    connection["protocol_ver_id"] = json!(version);
    connection
}

fn traffic(counters: &Counters) -> Json {
    json!({
        "bytes_out": counters.bytes_out,
        "bytes_in": counters.bytes_in,
        "bytes": counters.bytes_out + counters.bytes_in,
        "packets_out": counters.packets_out,
        "packets_in": counters.packets_in,
        "packets": counters.packets_out + counters.packets_in,
    })
}

/// The process and its user; `None` where neither is known.
fn actor(alert: &Alert) -> Option<Json> {
    let mut actor = Map::new();
    if let Some(process) = &alert.process {
        let mut process = ocsf::process(alert, process);
        if let Some(container) = &alert.container {
            process["container"] = ocsf::container(container);
        }
        actor.insert("process".to_owned(), process);
    }
    set(&mut actor, "user", alert.user.as_ref().and_then(ocsf::user_of));
    (!actor.is_empty()).then_some(Json::Object(actor))
}
