//! Writes a snapshot in the Prometheus text exposition format.
//!
//! The format asks for more than names and numbers: all series of a family stand together under
//! one `# TYPE`, no series appears twice, names keep to a small alphabet, and text is escaped. Our
//! names are free text, so all of that is settled here, whatever users call their metrics.

use super::{HistogramSnapshot, MetricSample, MetricValue};
use std::collections::BTreeMap;
use std::fmt::Write;

const PREFIX: &str = "tidegate";

/// The series of one name, by their rendered labels.
struct Family {
    kind: &'static str,
    help: String,
    series: BTreeMap<String, MetricValue>,
}

/// The samples as text exposition, families sorted by name.
///
/// Counters get the suffix `_total`, meters show as gauges of their rate per second, histograms as
/// summaries with the quantiles 0.5, 0.95, 0.99 and 1 (the maximum). If two metrics come down to
/// the same series, the first is written; if they differ in kind, the later family gets its kind
/// as a suffix.
pub fn render_prometheus(samples: &[MetricSample]) -> String {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    for sample in samples {
        let kind = kind_of(&sample.value);
        let mut name = family_name(sample);
        while is_taken(&families, &name, kind) {
            name = format!("{name}_{kind}");
        }
        let family = families.entry(name).or_insert_with(|| Family {
            kind,
            help: help_of(sample),
            series: BTreeMap::new(),
        });
        let labels = render_labels(&sample.labels);
        family.series.entry(labels).or_insert(sample.value);
    }
    let mut out = String::new();
    for (name, family) in &families {
        write_family(&mut out, name, family);
    }
    out
}

/// Whether a family `name` of this kind would clash with one that is there: with another kind under
/// its name, or through the `_sum` and `_count` series that a summary brings along.
fn is_taken(families: &BTreeMap<String, Family>, name: &str, kind: &str) -> bool {
    const PARTS: [&str; 2] = ["_sum", "_count"];
    if let Some(family) = families.get(name) {
        return family.kind != kind;
    }
    let is_part = |suffix: &&str| {
        let whole = name.strip_suffix(*suffix).and_then(|n| families.get(n));
        whole.is_some_and(|f| f.kind == "summary")
    };
    let part_exists = |suffix: &&str| families.contains_key(&format!("{name}{suffix}"));
    PARTS.iter().any(is_part) || (kind == "summary" && PARTS.iter().any(part_exists))
}

fn kind_of(value: &MetricValue) -> &'static str {
    match value {
        MetricValue::Counter(_) | MetricValue::Total(_) => "counter",
        MetricValue::Gauge(_) | MetricValue::Meter { .. } => "gauge",
        MetricValue::Histogram(_) => "summary",
    }
}

fn write_family(out: &mut String, name: &str, family: &Family) {
    out.push_str(&format!("# HELP {name} {}\n", family.help));
    out.push_str(&format!("# TYPE {name} {}\n", family.kind));
    for (labels, value) in &family.series {
        match value {
            MetricValue::Counter(n) => write_line(out, name, labels, &n.to_string()),
            MetricValue::Total(v) => write_line(out, name, labels, &number(*v)),
            MetricValue::Gauge(v) => write_line(out, name, labels, &number(*v)),
            MetricValue::Meter { rate, .. } => write_line(out, name, labels, &number(*rate)),
            MetricValue::Histogram(h) => write_summary(out, name, labels, h),
        }
    }
}

fn write_summary(out: &mut String, name: &str, labels: &str, h: &HistogramSnapshot) {
    let quantiles = [
        ("0.5", h.p50),
        ("0.95", h.p95),
        ("0.99", h.p99),
        ("1", h.max),
    ];
    let comma = if labels.is_empty() { "" } else { "," };
    for (quantile, value) in quantiles {
        let labels = format!("{labels}{comma}quantile=\"{quantile}\"");
        // Without values a quantile is not a number, not zero.
        let value = if h.count == 0 {
            "NaN".to_owned()
        } else {
            value.to_string()
        };
        write_line(out, name, &labels, &value);
    }
    write_line(out, &format!("{name}_sum"), labels, &h.sum.to_string());
    write_line(out, &format!("{name}_count"), labels, &h.count.to_string());
}

fn write_line(out: &mut String, name: &str, labels: &str, value: &str) {
    out.push_str(name);
    if !labels.is_empty() {
        out.push('{');
        out.push_str(labels);
        out.push('}');
    }
    out.push(' ');
    out.push_str(value);
    out.push('\n');
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

fn family_name(sample: &MetricSample) -> String {
    let mut name = String::from(PREFIX);
    for part in sample.scope.iter().chain([&sample.name]) {
        name.push('_');
        name.push_str(&plain(part));
    }
    if kind_of(&sample.value) == "counter" && !name.ends_with("_total") {
        name.push_str("_total");
    }
    name
}

/// The name as its author wrote it, which the family name may have had to change.
fn help_of(sample: &MetricSample) -> String {
    let parts: Vec<&str> = sample
        .scope
        .iter()
        .chain([&sample.name])
        .map(String::as_str)
        .collect();
    let path = parts.join(".").replace('\\', "\\\\").replace('\n', "\\n");
    let what = match sample.value {
        MetricValue::Counter(_) => "Events of",
        MetricValue::Total(_) => "Total of",
        MetricValue::Gauge(_) => "Value of",
        MetricValue::Meter { .. } => "Events per second of",
        MetricValue::Histogram(_) => "Distribution of",
    };
    format!("{what} {path}.")
}

/// Keeps ASCII letters and digits; everything else becomes an underscore.
fn plain(text: &str) -> String {
    let keep = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    text.chars().map(keep).collect()
}

/// The labels without braces. Of names that come down to the same one, the first counts.
fn render_labels(labels: &[(String, String)]) -> String {
    let mut unique: BTreeMap<String, &str> = BTreeMap::new();
    for (label, value) in labels {
        let mut name = plain(label);
        let starts_badly = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        // `quantile` belongs to summaries, and names that start with `__` to the scraper.
        if starts_badly || name == "quantile" {
            name.insert_str(0, "label_");
        }
        unique.entry(name).or_insert(value);
    }
    let mut out = String::new();
    for (name, value) in unique {
        let comma = if out.is_empty() { "" } else { "," };
        let value = value
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace('\n', "\\n");
        // Writing into a string cannot fail.
        let _ = write!(out, "{comma}{name}=\"{value}\"");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::MetricRegistry;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn every_kind_in_its_form() {
        let registry = MetricRegistry::new();
        let kafka = registry
            .root()
            .add_label("job", "a\"b\\c\nd")
            .add_group("kafka");
        kafka.counter("records.consumed").add(3);
        kafka.meter("records.per.second").mark(20, 0);
        kafka.gauge("lag").set(f64::INFINITY);
        registry.root().histogram("processing.latency").record(5);
        registry.root().histogram("idle");
        let expected = r#"# HELP tidegate_idle Distribution of idle.
# TYPE tidegate_idle summary
tidegate_idle{quantile="0.5"} NaN
tidegate_idle{quantile="0.95"} NaN
tidegate_idle{quantile="0.99"} NaN
tidegate_idle{quantile="1"} NaN
tidegate_idle_sum 0
tidegate_idle_count 0
# HELP tidegate_kafka_lag Value of kafka.lag.
# TYPE tidegate_kafka_lag gauge
tidegate_kafka_lag{job="a\"b\\c\nd"} +Inf
# HELP tidegate_kafka_records_consumed_total Events of kafka.records.consumed.
# TYPE tidegate_kafka_records_consumed_total counter
tidegate_kafka_records_consumed_total{job="a\"b\\c\nd"} 3
# HELP tidegate_kafka_records_per_second Events per second of kafka.records.per.second.
# TYPE tidegate_kafka_records_per_second gauge
tidegate_kafka_records_per_second{job="a\"b\\c\nd"} 20
# HELP tidegate_processing_latency Distribution of processing.latency.
# TYPE tidegate_processing_latency summary
tidegate_processing_latency{quantile="0.5"} 5
tidegate_processing_latency{quantile="0.95"} 5
tidegate_processing_latency{quantile="0.99"} 5
tidegate_processing_latency{quantile="1"} 5
tidegate_processing_latency_sum 5
tidegate_processing_latency_count 1
"#;
        assert_eq!(render_prometheus(&registry.snapshot(0)), expected);
    }

    #[test]
    fn names_that_collide_stay_valid() {
        let registry = MetricRegistry::new();
        registry.root().gauge("a.b").set(1.0);
        registry.root().gauge("a_b").set(2.0);
        registry.root().histogram("a-b").record(1);
        let group = registry.root().add_label("quantile", 1).add_label("1st", 2);
        group.histogram("q").record(1);
        let text = render_prometheus(&registry.snapshot(0));
        assert_eq!(text.matches("\ntidegate_a_b_gauge ").count(), 1, "{text}");
        assert!(text.contains("# TYPE tidegate_a_b summary"), "{text}");
        assert!(
            text.contains(r#"{label_1st="2",label_quantile="1",quantile="0.5"} 1"#),
            "{text}"
        );
    }

    #[test]
    fn the_parts_of_a_summary_are_not_doubled() {
        let registry = MetricRegistry::new();
        registry.root().histogram("x").record(1);
        registry.root().gauge("x.sum").set(1.0);
        registry.root().gauge("y.count").set(1.0);
        registry
            .root()
            .add_label("z", 1)
            .histogram("y.count")
            .record(1);
        registry.root().gauge("a.sum").set(1.0);
        registry.root().add_group("b").histogram("a").record(1);
        registry.root().gauge("b_a_count").set(1.0);
        let text = render_prometheus(&registry.snapshot(0));
        for series in ["x_sum", "y_count", "b_a_count"] {
            let plain = format!("\ntidegate_{series} ");
            assert_eq!(text.matches(&plain).count(), 1, "{series} in {text}");
        }
        assert!(text.contains("\ntidegate_x_sum_gauge 1\n"), "{text}");
        assert!(text.contains("\ntidegate_b_a_summary_count 1\n"), "{text}");
    }

    proptest! {
        #[test]
        fn any_name_gives_a_valid_page(
            metrics in prop::collection::vec(("\\PC{0,6}", "\\PC{0,6}", any::<String>(), 0..4u8), 0..12),
        ) {
            let registry = MetricRegistry::new();
            for (name, label, value, kind) in &metrics {
                let group = registry.root().add_label(label, value);
                match kind {
                    0 => group.counter(name).inc(),
                    1 => group.gauge(name).set(0.5),
                    2 => group.meter(name).mark(1, 1),
                    _ => group.histogram(name).record(1),
                }
            }
            let text = render_prometheus(&registry.snapshot(1));
            let mut seen = HashSet::new();
            for line in text.split_terminator('\n') {
                if let Some(rest) = line.strip_prefix("# TYPE ") {
                    prop_assert!(seen.insert(rest.split(' ').next().unwrap_or("").to_owned()));
                } else if !line.starts_with("# HELP ") {
                    let (series, value) = line.rsplit_once(' ').expect("series and value");
                    prop_assert!(value.parse::<f64>().is_ok(), "{line}");
                    prop_assert!(seen.insert(format!("series {series}")), "twice: {line}");
                    let name = series.split('{').next().unwrap_or("");
                    prop_assert!(name.bytes().all(|b| b == b'_' || b.is_ascii_alphanumeric()));
                }
            }
        }
    }
}
