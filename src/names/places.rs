//! The network and country of an address, from MaxMind-format databases.
//!
//! Pure: an edge reads the files. A database is checked in full before the
//! first look-up, so that a corrupt one is an error when it is loaded and
//! never a wrong answer afterwards.

use std::sync::Arc;

use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

use crate::names::Place;
use crate::packet::Address;

/// Databases that are asked together: the first that knows a fact answers.
#[derive(Debug, Default)]
pub struct Places {
    databases: Vec<PlaceDatabase>,
}

/// One database, checked.
#[derive(Debug)]
pub struct PlaceDatabase {
    reader: Reader<Vec<u8>>,
}

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The bytes are not a MaxMind database at all.
    #[error("not a MaxMind database")]
    Open(#[source] MaxMindDbError),
    /// It is one, and damaged.
    #[error("the MaxMind database is corrupt")]
    Corrupt(#[source] MaxMindDbError),
}

impl Places {
    /// Asks these databases, in this order.
    pub fn new(databases: Vec<PlaceDatabase>) -> Self {
        Self { databases }
    }

    /// Whether there is no database to ask.
    pub fn is_empty(&self) -> bool {
        self.databases.is_empty()
    }

    /// Where an address is, or `None` where no database knows anything.
    pub fn find(&self, address: Address) -> Result<Option<Place>, PlaceError> {
        let mut place = Place::default();
        for database in &self.databases {
            let Some(found) = database.find(address)? else { continue };
            if place.asn.is_none() {
                place.asn = found.asn;
                place.organization = found.organization;
            }
            place.country = place.country.or(found.country);
        }
        Ok((place != Place::default()).then_some(place))
    }
}

impl PlaceDatabase {
    /// Takes a database's bytes and checks all of them.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, PlaceError> {
        let reader = Reader::from_source(bytes).map_err(PlaceError::Open)?;
        reader.verify().map_err(PlaceError::Corrupt)?;
        Ok(Self { reader })
    }

    /// What kind of database it says it is, such as `GeoLite2-ASN`.
    pub fn kind(&self) -> &str {
        &self.reader.metadata().database_type
    }

    /// When it was built, in seconds since the epoch.
    pub fn built(&self) -> u64 {
        self.reader.metadata().build_epoch
    }

    /// Where an address is.
    pub fn find(&self, address: Address) -> Result<Option<Place>, PlaceError> {
        if self.reader.metadata().ip_version == 4 && !address.is_v4() {
            return Ok(None);
        }
        let found = self.reader.lookup(address.ip()).map_err(PlaceError::Corrupt)?;
        let record = found.decode::<Record>().map_err(PlaceError::Corrupt)?;
        Ok(record.map(Place::from).filter(|place| *place != Place::default()))
    }
}

/// The fields of MaxMind's and DB-IP's records, and of IPinfo's, which are flat.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    autonomous_system_number: Option<u32>,
    autonomous_system_organization: Option<&'a str>,
    #[serde(borrow)]
    country: Option<Country<'a>>,
    country_code: Option<&'a str>,
    asn: Option<&'a str>,
    as_name: Option<&'a str>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Country<'a> {
    Record {
        #[serde(borrow)]
        iso_code: Option<&'a str>,
    },
    Text(&'a str),
}

impl From<Record<'_>> for Place {
    fn from(record: Record<'_>) -> Self {
        let flat = record.asn.and_then(|text| text.strip_prefix("AS").unwrap_or(text).parse().ok());
        let country = match record.country {
            Some(Country::Record { iso_code }) => iso_code,
            Some(Country::Text(text)) => Some(text).filter(|text| text.len() == 2),
            None => None,
        };
        Self {
            asn: record.autonomous_system_number.or(flat),
            organization: record.autonomous_system_organization.or(record.as_name).map(Arc::from),
            country: record.country_code.or(country).map(Arc::from),
        }
    }
}
