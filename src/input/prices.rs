//! Price tables: the built-in one and a file in TOML over it come in, checked prices go out.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Result;
use hyperrag_rerank::cost::StoragePrice;
use serde::Deserialize;

use crate::error::Usage;
use crate::input::quantity::checked;
use crate::input::storage::StorageFlag;
use crate::input::text;

/// The built-in table.
pub(crate) const BUILT_IN: &str = include_str!("prices.toml");
/// Bytes of a price table.
const BYTES_MAX: u64 = 1 << 20;
/// Kinds of storage that are compared if none is named.
const STORAGES: [&str; 3] = ["ram", "nvme", "s3"];

/// Rate and price of a device.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Hardware {
    /// Floating-point operations a second.
    pub(crate) flops: f64,
    /// Share of these that a model reaches.
    pub(crate) efficiency: f64,
    pub(crate) dollars_per_hour: f64,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct StorageEntry {
    dollars_per_gb_month: f64,
    #[serde(default)]
    dollars_per_request: f64,
    bytes_per_second: f64,
    #[serde(default)]
    latency_seconds: f64,
}

/// A price table.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Prices {
    /// Day of the prices, as the table says it.
    #[serde(default)]
    pub(crate) date: String,
    #[serde(default)]
    hardware: BTreeMap<String, Hardware>,
    #[serde(default)]
    storage: BTreeMap<String, StorageEntry>,
}

/// Returns the kinds of storage that are compared if none is named.
pub(crate) fn usual_storages() -> Vec<StorageFlag> {
    STORAGES.map(|name| StorageFlag { name: name.to_owned(), ..Default::default() }).to_vec()
}

/// Checks a number that must be above 0.
fn above_zero(number: f64) -> Result<(), String> {
    match checked(number)? > 0.0 {
        true => Ok(()),
        false => Err("give a number above 0".to_owned()),
    }
}

impl Prices {
    /// Reads the built-in table, and `file` over it.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self> {
        let mut prices = Self::parse(BUILT_IN, "the built-in prices")?;
        if let Some(path) = file {
            let text = text::read(path, "the price table", BYTES_MAX)?;
            let own = Self::parse(&text, &path.display().to_string())?;
            // Prices of two days are no prices of either.
            prices.date = match own.date.is_empty() {
                true => format!("{}, and {}", prices.date, path.display()),
                false => format!("{}, and {} of {}", prices.date, path.display(), own.date),
            };
            prices.hardware.extend(own.hardware);
            prices.storage.extend(own.storage);
        }
        Ok(prices)
    }

    fn parse(text: &str, name: &str) -> Result<Self> {
        let prices: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start).min(text.len());
            let line = text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
            Usage(format!("{name}: line {line}: {}", error.message()))
        })?;
        let wrong = |kind: &str, entry: &str, key: &str, what: String| {
            Usage(format!("{name}: {kind}.{entry}: {key}: {what}"))
        };
        for (entry, of) in &prices.hardware {
            let numbers = [
                ("flops", of.flops),
                ("efficiency", of.efficiency),
                ("dollars_per_hour", of.dollars_per_hour),
            ];
            for (key, number) in numbers {
                above_zero(number).map_err(|what| wrong("hardware", entry, key, what))?;
            }
        }
        for (entry, of) in &prices.storage {
            let from_zero = [
                ("dollars_per_gb_month", of.dollars_per_gb_month),
                ("dollars_per_request", of.dollars_per_request),
                ("latency_seconds", of.latency_seconds),
            ];
            for (key, number) in from_zero {
                checked(number).map_err(|what| wrong("storage", entry, key, what))?;
            }
            let key = "bytes_per_second";
            above_zero(of.bytes_per_second).map_err(|what| wrong("storage", entry, key, what))?;
        }
        Ok(prices)
    }

    /// Finds a device by name.
    pub(crate) fn hardware(&self, name: &str) -> Result<Hardware> {
        self.hardware.get(name).copied().ok_or_else(|| {
            let known = self.hardware.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            Usage(format!(
                "no hardware {name:?} in the price table: there are {known}; --prices adds others"
            ))
            .into()
        })
    }

    /// Returns the kinds of storage that the flags name, or the usual ones.
    pub(crate) fn storages(&self, flags: &[StorageFlag]) -> Result<Vec<StoragePrice>> {
        let usual = usual_storages();
        let flags = if flags.is_empty() { &usual } else { flags };
        flags.iter().map(|flag| self.storage(flag)).collect()
    }

    fn storage(&self, flag: &StorageFlag) -> Result<StoragePrice> {
        let entry = self.storage.get(&flag.name);
        let missing = |key: &str| {
            let known = self.storage.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            let name = &flag.name;
            Usage(format!(
                "--storage {name}: the price table has {known}; give another one its {key}, as in \
                 {name}:price=0.03,bandwidth=8GB"
            ))
        };
        let (price, rate) = (flag.dollars_per_gb_month, flag.bytes_per_second);
        Ok(StoragePrice {
            name: flag.name.clone(),
            dollars_per_gb_month: price
                .or(entry.map(|entry| entry.dollars_per_gb_month))
                .ok_or_else(|| missing("price"))?,
            dollars_per_request: flag
                .dollars_per_request
                .or(entry.map(|entry| entry.dollars_per_request))
                .unwrap_or(0.0),
            bytes_per_second: rate
                .or(entry.map(|entry| entry.bytes_per_second))
                .ok_or_else(|| missing("bandwidth"))?,
            latency_seconds: flag
                .latency_seconds
                .or(entry.map(|entry| entry.latency_seconds))
                .unwrap_or(0.0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::storage::parse_storage;

    #[test]
    fn the_built_in_table_has_the_usual_storages() {
        let prices = Prices::read(None).unwrap();
        assert_eq!(prices.date, "2026-11-29");
        assert_eq!(prices.storages(&[]).unwrap().len(), 3);
        assert_eq!(prices.hardware("a100").unwrap().dollars_per_hour, 2.57);
        let own = prices.storages(&[parse_storage("nvme:price=0.03").unwrap()]).unwrap();
        assert_eq!((own[0].dollars_per_gb_month, own[0].bytes_per_second), (0.03, 6e9));
        let error = prices.hardware("abacus").unwrap_err().to_string();
        assert!(error.contains("a100, h100, two-cores"), "{error}");
        let half = [parse_storage("tape:price=0.001").unwrap()];
        let error = prices.storages(&half).unwrap_err().to_string();
        assert!(error.contains("its bandwidth"), "{error}");
    }

    #[test]
    fn wrong_tables_are_refused_with_their_place() {
        for (table, said) in [
            ("date = 3", "t: line 1: "),
            ("\n[hardware.x]\nflops = 1\n", "t: line 2: missing field"),
            ("[storage.x]\nbytes_per_second = 1\nprice = 2", "unknown field `price`"),
            (
                "[hardware.x]\nflops = nan\nefficiency = 1\ndollars_per_hour = 1",
                "t: hardware.x: flops: give a number from",
            ),
            (
                "[storage.x]\ndollars_per_gb_month = -1\nbytes_per_second = 1",
                "t: storage.x: dollars_per_gb_month: give a number that is not negative",
            ),
            (
                "[storage.x]\ndollars_per_gb_month = 1\nbytes_per_second = 0",
                "t: storage.x: bytes_per_second: give a number above 0",
            ),
            ("[[storage]]\nx = 1", "t: line 1: "),
        ] {
            let error = Prices::parse(table, "t").unwrap_err().to_string();
            assert!(error.contains(said), "{table}: {error}");
        }
    }

    #[test]
    fn changed_tables_are_refused_or_read_without_a_panic() {
        let target = |bytes: &[u8]| Prices::parse(&String::from_utf8_lossy(bytes), "t").is_ok();
        crate::changed::changes_are_no_panic("prices", BUILT_IN.as_bytes(), 600, target);
    }
}
