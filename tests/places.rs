//! MaxMind databases, against what libmaxminddb answers, and corrupt ones.

use std::net::IpAddr;

use egret::names::{Place, PlaceDatabase};
use serde_json::Value;

use crate::support::data;

#[test]
fn databases_answer_as_libmaxminddb_does() {
    let Some(expected) = data::path("expected/mmdb.json") else { return };
    let expected: Value = serde_json::from_slice(&std::fs::read(expected).unwrap()).unwrap();
    for (file, facts) in expected.as_object().unwrap() {
        let database = PlaceDatabase::from_bytes(std::fs::read(data::path(file).unwrap()).unwrap());
        if facts["corrupt"] == Value::Bool(true) {
            let error = database.err().unwrap_or_else(|| panic!("{file} was taken as sound"));
            assert!(error.to_string().contains("MaxMind database"), "{file}: {error}");
            continue;
        }
        let database = database.unwrap_or_else(|error| panic!("{file}: {error:?}"));
        for (probe, answer) in facts["probes"].as_object().unwrap() {
            let place = database.find(probe.parse::<IpAddr>().unwrap().into()).unwrap().unwrap_or_default();
            let text = |name: &str| answer[name].as_str().map(Into::into);
            let asn = answer["autonomous_system_number"].as_u64().map(|asn| u32::try_from(asn).unwrap());
            let organization = text("autonomous_system_organization");
            assert_eq!(place, Place { asn, organization, country: text("country") }, "{file}: {probe}");
        }
    }
}
