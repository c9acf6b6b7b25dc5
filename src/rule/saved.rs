//! A value as it is kept on disk: the same bytes come back.

use bstr::{BString, ByteSlice};

use crate::packet::Address;
use crate::rule::Value;

/// A [`Value`] that survives a round trip.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SavedValue {
    /// No value.
    Missing,
    /// A whole number.
    Number(u64),
    /// An address.
    Ip([u8; 16]),
    /// Text.
    Text(String),
    /// Bytes that are no UTF-8.
    Bytes(Vec<u8>),
    /// Several texts.
    List(Vec<Vec<u8>>),
}

impl From<&Value> for SavedValue {
    fn from(value: &Value) -> Self {
        match value {
            Value::Missing => Self::Missing,
            Value::Number(number) => Self::Number(*number),
            Value::Ip(address) => Self::Ip(address.octets()),
            Value::Text(text) => match text.to_str() {
                Ok(text) => Self::Text(text.to_owned()),
                Err(_) => Self::Bytes(text.to_vec()),
            },
            Value::List(list) => Self::List(list.iter().map(|item| item.to_vec()).collect()),
        }
    }
}

impl From<SavedValue> for Value {
    fn from(saved: SavedValue) -> Self {
        match saved {
            SavedValue::Missing => Self::Missing,
            SavedValue::Number(number) => Self::Number(number),
            SavedValue::Ip(octets) => Self::Ip(Address::from_v6(octets)),
            SavedValue::Text(text) => Self::Text(text.into()),
            SavedValue::Bytes(bytes) => Self::Text(bytes.into()),
            SavedValue::List(list) => Self::List(list.into_iter().map(BString::from).collect()),
        }
    }
}

/// A group's values as they are kept.
pub fn save_group(group: &[Value]) -> Vec<SavedValue> {
    group.iter().map(SavedValue::from).collect()
}

/// A group's values as they were.
pub fn restore_group(saved: Vec<SavedValue>) -> Box<[Value]> {
    saved.into_iter().map(Value::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_comes_back() {
        let group = [
            Value::Missing,
            Value::Number(7),
            Value::Ip(Address::from_v4([203, 0, 113, 7])),
            Value::Text("203.0.113.7".into()),
            Value::Text(BString::from(vec![0xff, 0x00])),
            Value::List(vec!["a".into(), BString::from(vec![0xfe])]),
        ];
        let text = serde_json::to_string(&save_group(&group)).unwrap();
        let back: Vec<SavedValue> = serde_json::from_str(&text).unwrap();
        assert_eq!(restore_group(back).as_ref(), group);
    }
}
