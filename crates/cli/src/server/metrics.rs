//! Counters and histograms of `GET /metrics`, in the text format of Prometheus.

use phi3v::engine::{Finished, Load};
use prometheus_client::encoding::{EncodeLabelSet, text::encode};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Route {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// Everything counted for `/metrics`: requests, answers, tokens, times, and the engine's load.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    http_requests: Family<Route, Counter>,
    answers: Family<Reason, Counter>,
    prompt_tokens: Counter,
    cached_tokens: Counter,
    image_tokens: Counter,
    completion_tokens: Counter,
    sequences_waiting: Gauge,
    sequences_running: Gauge,
    kv_blocks_in_use: Gauge,
    kv_blocks: Gauge,
    first_token: Histogram,
    token_gap: Histogram,
    queued: Histogram,
}

/// Returns a histogram with buckets from one millisecond to about two minutes, in powers of two.
fn seconds() -> Histogram {
    Histogram::new((0..18).map(|power| 0.001 * f64::from(1 << power)))
}

impl Metrics {
    /// Creates all counters and histograms at zero, registered under their names.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("phi3v"),
            http_requests: Family::default(),
            answers: Family::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            image_tokens: Counter::default(),
            completion_tokens: Counter::default(),
            sequences_waiting: Gauge::default(),
            sequences_running: Gauge::default(),
            kv_blocks_in_use: Gauge::default(),
            kv_blocks: Gauge::default(),
            first_token: seconds(),
            token_gap: seconds(),
            queued: seconds(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("http_requests", "HTTP requests by route and status", self.http_requests.clone());
        r.register("answers", "Answers by the reason they ended for", self.answers.clone());
        r.register("prompt_tokens", "Tokens of prompts, pictures included", self.prompt_tokens.clone());
        r.register("cached_tokens", "Prompt tokens found in the prefix cache", self.cached_tokens.clone());
        r.register("image_tokens", "Prompt tokens that stand for pictures", self.image_tokens.clone());
        r.register("completion_tokens", "Tokens of answers", self.completion_tokens.clone());
        r.register("sequences_waiting", "Requests waiting for the engine", self.sequences_waiting.clone());
        r.register("sequences_running", "Requests in the engine", self.sequences_running.clone());
        r.register("kv_blocks_in_use", "Blocks of the KV cache in use", self.kv_blocks_in_use.clone());
        r.register("kv_blocks", "Blocks of the KV cache", self.kv_blocks.clone());
        let unit = || Unit::Seconds;
        r.register_with_unit(
            "first_token",
            "From arrival to the first token",
            unit(),
            self.first_token.clone(),
        );
        r.register_with_unit(
            "token_gap",
            "Time between two tokens of an answer",
            unit(),
            self.token_gap.clone(),
        );
        r.register_with_unit("queued", "Time waiting for the engine", unit(), self.queued.clone());
    }

    /// Counts an answered HTTP request. `route` is the router's pattern, never the path a client sent.
    pub fn http_request(&self, route: &str, status: u16) {
        self.http_requests.get_or_create(&Route { route: route.to_owned(), status }).inc();
    }

    /// Counts a client that disconnected before the engine had its request.
    pub fn abandoned(&self) {
        self.answers.get_or_create(&Reason { reason: "cancelled" }).inc();
    }

    /// Counts an answer that has ended, with its tokens and times.
    pub fn finished(&self, finished: &Finished) {
        self.answers.get_or_create(&Reason { reason: finished.reason.name() }).inc();
        let (usage, timings) = (&finished.usage, &finished.timings);
        self.prompt_tokens.inc_by(usage.prompt_tokens as u64);
        self.cached_tokens.inc_by(usage.cached_tokens as u64);
        self.image_tokens.inc_by(usage.image_tokens as u64);
        self.completion_tokens.inc_by(usage.completion_tokens as u64);
        self.queued.observe(timings.queued.as_secs_f64());
    }

    /// Records the first token of an answer, `since_arrival` after its request arrived.
    pub fn first_token(&self, since_arrival: Duration) {
        self.first_token.observe(since_arrival.as_secs_f64());
    }

    /// Records a further token of an answer, `gap` after the previous one.
    pub fn next_token(&self, gap: Duration) {
        self.token_gap.observe(gap.as_secs_f64());
    }

    /// Counts an answer that ended with an error.
    pub fn failed(&self) {
        self.answers.get_or_create(&Reason { reason: "failed" }).inc();
    }

    /// Records the engine's load after a step: waiting and running requests, and blocks.
    pub fn load(&self, load: &Load) {
        let set = |gauge: &Gauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        set(&self.sequences_waiting, load.waiting);
        set(&self.sequences_running, load.running);
        set(&self.kv_blocks_in_use, load.blocks_in_use);
        set(&self.kv_blocks, load.blocks_total);
    }

    /// Returns all metrics in the text format of Prometheus, for `/metrics`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("writing to a String cannot fail");
        text
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}
