//! Health by component; the worst component decides for the whole.
//!
//! Setting and reading take no lock that anybody could wait on: a component's state is swapped as one value.

use std::sync::Arc;

use arc_swap::ArcSwap;
use serde::Serialize;

/// How well something works. The order is from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Healthy,
    /// Works with restrictions; clients are still better sent here than nowhere.
    Degraded,
    /// Clients are better sent elsewhere.
    Unhealthy,
}

/// The components of one proxy.
#[derive(Debug, Default)]
pub struct Health {
    components: ArcSwap<Vec<Arc<Component>>>,
}

/// One component's current state.
#[derive(Debug)]
pub struct Component {
    name: &'static str,
    state: ArcSwap<State>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct State {
    status: Status,
    text: String,
}

/// All components at one moment, as `/health/ready` shows them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    pub status: Status,
    pub components: Vec<ComponentReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ComponentReport {
    pub name: &'static str,
    pub status: Status,
    pub text: String,
}

impl Health {
    /// Adds a component. It is unhealthy, "starting", until it says otherwise.
    pub fn register(&self, name: &'static str) -> Arc<Component> {
        let state = State { status: Status::Unhealthy, text: "starting".into() };
        let component = Arc::new(Component { name, state: ArcSwap::from_pointee(state) });
        self.components.rcu(|components| {
            let mut components = Vec::clone(components);
            components.push(Arc::clone(&component));
            components
        });
        component
    }

    pub fn report(&self) -> Report {
        Report::of(self.components.load().iter().map(|component| component.report()).collect())
    }
}

/// One thing that can be looked at.
pub struct HealthCheck {
    name: &'static str,
    look: Box<dyn Fn() -> (Status, String) + Send + Sync>,
}

/// Things that are looked at whenever somebody asks.
#[derive(Default)]
pub struct HealthChecker {
    checks: Vec<HealthCheck>,
}

impl HealthCheck {
    /// `look` says how it is, and why, for people. It must not block.
    pub fn new(name: &'static str, look: impl Fn() -> (Status, String) + Send + Sync + 'static) -> Self {
        Self { name, look: Box::new(look) }
    }

    pub fn check(&self) -> ComponentReport {
        let (status, text) = (self.look)();
        ComponentReport { name: self.name, status, text }
    }
}

impl HealthChecker {
    pub fn add(&mut self, check: HealthCheck) {
        self.checks.push(check);
    }

    /// All of them now; the worst decides.
    pub fn check(&self) -> Report {
        let components: Vec<ComponentReport> = self.checks.iter().map(HealthCheck::check).collect();
        Report::of(components)
    }
}

impl Report {
    fn of(components: Vec<ComponentReport>) -> Self {
        let status = components.iter().map(|component| component.status).max().unwrap_or(Status::Healthy);
        Self { status, components }
    }
}

impl Component {
    /// Sets the state; `text` says why, for people. Returns whether the status is another than before, which is when a
    /// caller should log it.
    pub fn set(&self, status: Status, text: impl Into<String>) -> bool {
        self.state.swap(Arc::new(State { status, text: text.into() })).status != status
    }

    pub fn status(&self) -> Status {
        self.state.load().status
    }

    fn report(&self) -> ComponentReport {
        let state = self.state.load();
        ComponentReport { name: self.name, status: state.status, text: state.text.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_component_decides() {
        let health = Health::default();
        assert_eq!(health.report().status, Status::Healthy);
        let upstream = health.register("upstream");
        let catalog = health.register("catalog");
        assert_eq!(health.report().status, Status::Unhealthy);
        assert!(upstream.set(Status::Healthy, "connected"));
        assert!(catalog.set(Status::Degraded, "polling failed"));
        assert_eq!(health.report().status, Status::Degraded);
        assert!(!catalog.set(Status::Degraded, "polling failed again"));
        assert!(catalog.set(Status::Healthy, "as of now"));
        assert_eq!(health.report().status, Status::Healthy);
    }

    #[test]
    fn a_report_is_readable_json() {
        let health = Health::default();
        health.register("upstream").set(Status::Unhealthy, "connection refused");
        assert_eq!(
            serde_json::to_string(&health.report()).unwrap(),
            r#"{"status":"unhealthy","components":[{"name":"upstream","status":"unhealthy","text":"connection refused"}]}"#
        );
    }
}
