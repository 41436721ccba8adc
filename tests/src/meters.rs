//! What a thread's code counts through the `metrics` facade.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// Counters, gauges and histograms by their names and labels: `name{label="value"}`. `metrics::set_default_local_recorder`
/// has a thread use it.
#[derive(Debug, Default)]
pub struct Meters(Arc<Mutex<BTreeMap<String, Vec<f64>>>>);

/// One of them.
struct Meter {
    all: Arc<Mutex<BTreeMap<String, Vec<f64>>>>,
    name: String,
}

impl Meters {
    /// What was counted, or the last value of a gauge; 0 when there was nothing.
    pub fn last(&self, name: &str) -> f64 {
        self.values(name).last().copied().unwrap_or_default()
    }

    /// Every value that a histogram was given.
    pub fn values(&self, name: &str) -> Vec<f64> {
        lock(&self.0).get(name).cloned().unwrap_or_default()
    }

    /// All that there are.
    pub fn names(&self) -> Vec<String> {
        lock(&self.0).keys().cloned().collect()
    }

    fn meter(&self, key: &Key) -> Arc<Meter> {
        let labels = key.labels().map(|label| format!("{}=\"{}\"", label.key(), label.value())).collect::<Vec<_>>();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        Arc::new(Meter { all: Arc::clone(&self.0), name: format!("{}{labels}", key.name()) })
    }
}

fn lock(all: &Mutex<BTreeMap<String, Vec<f64>>>) -> MutexGuard<'_, BTreeMap<String, Vec<f64>>> {
    all.lock().expect("nothing panics here")
}

impl Recorder for Meters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.meter(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.meter(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.meter(key))
    }
}

impl Meter {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut all = lock(&self.all);
        let values = all.entry(self.name.clone()).or_default();
        let value = change(values.last().copied().unwrap_or_default());
        *values = vec![value];
    }
}

impl CounterFn for Meter {
    #[allow(clippy::cast_precision_loss, reason = "no test counts so far")]
    fn increment(&self, value: u64) {
        self.change(|before| before + value as f64);
    }

    #[allow(clippy::cast_precision_loss, reason = "no test counts so far")]
    fn absolute(&self, value: u64) {
        self.change(|_| value as f64);
    }
}

impl GaugeFn for Meter {
    fn increment(&self, value: f64) {
        self.change(|before| before + value);
    }

    fn decrement(&self, value: f64) {
        self.change(|before| before - value);
    }

    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

impl HistogramFn for Meter {
    fn record(&self, value: f64) {
        lock(&self.all).entry(self.name.clone()).or_default().push(value);
    }
}
