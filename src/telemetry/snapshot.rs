//! All metrics at one moment, by series, exactly as Prometheus is told them.

use std::collections::BTreeMap;

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot(BTreeMap<String, f64>);

impl Snapshot {
    /// Of what [`Metrics::render`](super::metrics::Metrics::render) writes.
    pub fn of(exposition: &str) -> Self {
        let samples = exposition.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series.to_owned(), value.parse().ok()?))
        };
        Self(samples.filter_map(sample).collect())
    }

    /// The value of `name{label="value"}`; 0 if there is no such series.
    pub fn get(&self, series: &str) -> f64 {
        self.0.get(series).copied().unwrap_or_default()
    }

    /// That of a counter.
    pub fn count(&self, series: &str) -> u64 {
        self.get(series) as u64
    }

    /// The sum over all labels.
    pub fn sum(&self, name: &str) -> f64 {
        let is_labelled = |series: &str| series.strip_prefix(name).is_some_and(|rest| rest.starts_with('{'));
        self.0.iter().filter(|(series, _)| *series == name || is_labelled(series)).map(|(_, value)| value).sum()
    }

    /// An object with a member for each series, but for the buckets of histograms.
    pub fn json(&self) -> Value {
        let plain = self.0.iter().filter(|(series, _)| !series.contains("_bucket{"));
        Value::Object(plain.map(|(series, value)| (series.clone(), (*value).into())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_found_by_name_and_labels() {
        let text = "# HELP a_total x\n# TYPE a_total counter\na_total{k=\"v w\"} 2\na_total{k=\"u\"} 3\n\na_totals 7\nb_bucket{le=\"1\"} 4\n";
        let snapshot = Snapshot::of(text);
        assert_eq!(snapshot.count("a_total{k=\"v w\"}"), 2);
        assert_eq!(snapshot.sum("a_total"), 5.0);
        assert_eq!(snapshot.get("none"), 0.0);
        assert_eq!(snapshot.json().to_string(), r#"{"a_totals":7.0,"a_total{k=\"u\"}":3.0,"a_total{k=\"v w\"}":2.0}"#);
    }
}
