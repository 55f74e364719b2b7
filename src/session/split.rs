//! Which reads are split over several connections. How their rows reach the client: [`super::split_answer`].
//!
//! **Invariant.** The request stays where it is until the first rows are there, or it is known that there are none: whatever goes
//! wrong before is unknown to the client, and the request is relayed as it stands.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

use super::Session;
use super::block::Status;
use super::jobs::Job;
use super::lookup::{Fill, Plan, ReadRequest};
use super::scan_probe::ScanProbe;
use super::slow::Sent;
use crate::cache::ledger::Page;
use crate::cache::verdict::Bypass;
use crate::catalog::Classified;
use crate::catalog::analysis::Analysis;
use crate::catalog::scan::ScanVerdict;
use crate::parallel::{self, Account, Failure, Grouping, Parameters, Rows, ScanQuery, SessionSettings, Sorting};
use crate::statement::Part;
use crate::telemetry::export::Trace;
use crate::telemetry::metrics::Unsplit;
use crate::wire::error::field;
use crate::wire::frame::HEADER_BYTES;

/// Questions that one request may be held up by: for the settings, for the plan, and once more if something came in between.
const QUESTIONS: u8 = 3;
/// How long a statement that could not be split is not tried again.
const PAUSE: Duration = Duration::from_secs(60);
/// The same for one that has read its table before that was seen.
const LONG_PAUSE: Duration = Duration::from_secs(600);
/// How long a session does not ask again about one of which it was not told enough: the catalogue changed in between, or is read.
const UNANSWERED_PAUSE: Duration = Duration::from_secs(1);

/// What a session knows and does about splitting.
#[derive(Default)]
pub struct Splitting {
    /// How to log in as its user; `None` if the proxy cannot.
    pub account: Option<Arc<Account>>,
    /// Its settings and how to repeat them, as read since they changed last.
    pub settings: Option<(Arc<SessionSettings>, Arc<parallel::Replay>)>,
    /// Questions that the present request has been held up by.
    questions: u8,
    /// A statement, by its shape, about which asking has led to nothing, and until when it is not asked about again.
    unanswered: Option<([u8; 32], u64)>,
    /// Begun for the request at the front of the input, which waits for its first rows.
    pub(super) starting: Option<Box<Split>>,
}

/// A read that several connections answer.
pub struct Split {
    pub(super) rows: Rows,
    pub(super) fill: Option<Box<Fill>>,
    /// It has failed before the first row.
    pub(super) failure: Option<Failure>,
    /// Nothing can be taken at the moment; who has something wakes the session.
    pub(super) pending: bool,
    pub(super) stall: Option<Stall>,
    pub(super) started: Instant,
    pub(super) analysis: Arc<Analysis>,
    pub(super) page: Option<Arc<Page>>,
    /// For the log, should it be slow.
    pub(super) sent: Option<Box<Sent>>,
    pub(super) trace: Option<Box<Trace>>,
    pub(super) _classified: Classified,
}

/// The client has not taken everything, since when the clock runs.
pub(super) struct Stall {
    pub(super) left: usize,
    pub(super) clock: std::pin::Pin<Box<Sleep>>,
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Split {
    /// More can be taken, as far as is known.
    pub fn is_ready(&self) -> bool {
        !self.pending
    }

    /// Nobody knows whether more can be taken.
    pub fn look_again(&mut self) {
        self.pending = false;
    }
}

impl Splitting {
    pub fn new(account: Option<Arc<Account>>) -> Self {
        Self { account, ..Self::default() }
    }

    /// A request waits for its first rows.
    pub fn is_starting(&self) -> bool {
        self.starting.is_some()
    }

    /// Whether a request that waits for its first rows can go on.
    pub fn poll_start(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.starting.as_ref().map_or(Poll::Ready(()), |split| split.rows.poll_ready(cx))
    }
}

/// What to do next about a read that may be split.
enum Step {
    Ask(Job),
    Split(Arc<Analysis>),
}

impl Session {
    /// Whether a read is of a form that is split, in a session that can split.
    pub(super) fn may_split(&self, request: &ReadRequest<'_>) -> bool {
        self.splitting.account.is_some()
            && request.statement.parts.first().is_some_and(Part::may_be_split)
            && request.statement.hint.parallel != Some(1)
            && self.shared.config.load().parallel.enabled
    }

    /// Asks what has to be known before a read can be split; `bypass` is why it is not for the cache. True if something was
    /// asked: the request is looked at again when the answer is here.
    pub(super) fn asks_about_split(&mut self, request: &ReadRequest<'_>, bypass: Option<Bypass>) -> bool {
        if !self.may_split(request) || self.splitting.questions >= QUESTIONS {
            return false;
        }
        if self.is_unanswered(request) {
            return false;
        }
        match self.split_step(request, bypass) {
            // It is asked on a connection of the session's.
            Ok(Step::Ask(_)) if !self.attach() => true,
            Ok(Step::Ask(job)) => {
                self.splitting.questions += 1;
                self.start(job);
                self.pipeline.at_own()
            }
            _ => false,
        }
    }

    /// Begins to split a read that would be relayed, if that can be done. Otherwise it is relayed, recorded by `fill`.
    pub(super) fn split_or_relay(
        &mut self,
        request: &ReadRequest<'_>,
        bypass: Option<Bypass>,
        fill: Option<Box<Fill>>,
    ) -> Plan {
        self.splitting.questions = 0;
        let config = self.shared.config.load();
        if !config.parallel.enabled {
            return Plan::Relay(fill);
        }
        let started = match self.split_step(request, bypass) {
            Ok(Step::Split(analysis)) => self.start_split(request, &analysis).map(|rows| (rows, analysis)),
            Ok(Step::Ask(_)) => {
                self.note_unanswered(request);
                Err(Unsplit::Failed)
            }
            Err(reason) => Err(reason),
        };
        match started {
            Ok((rows, analysis)) => {
                self.control.activity.begins();
                self.splitting.starting = Some(Box::new(Split {
                    rows,
                    fill,
                    failure: None,
                    pending: false,
                    stall: None,
                    started: Instant::now(),
                    analysis,
                    page: self.page(request.statement, request.text).cloned(),
                    sent: self.sent(request.text, request.bind.map(|(body, _)| body)),
                    trace: None,
                    _classified: self.visit.database().classify(),
                }));
                Plan::Pause
            }
            Err(reason) => {
                self.shared.metrics.unsplit(reason).increment(1);
                Plan::Relay(fill)
            }
        }
    }

    fn note_unanswered(&mut self, request: &ReadRequest<'_>) {
        if !self.is_unanswered(request)
            && let Some(part) = request.statement.parts.first()
        {
            let until = self.shared.store.now() + UNANSWERED_PAUSE.as_millis() as u64;
            self.splitting.unanswered = Some((part.shape, until));
        }
    }

    fn is_unanswered(&self, request: &ReadRequest<'_>) -> bool {
        let Some((shape, until)) = self.splitting.unanswered else { return false };
        request.statement.parts.first().is_some_and(|part| part.shape == shape) && self.shared.store.now() < until
    }

    /// What has become of a split that was begun for the request at hand.
    pub(super) fn resume_split(&mut self) -> Option<Plan> {
        let mut split = self.splitting.starting.take()?;
        match split.rows.take_failure() {
            None => {}
            Some(failure) if failure.is_final => split.failure = Some(failure),
            Some(failure) => {
                let message = field(failure.frame.get(HEADER_BYTES..).unwrap_or_default(), b'M').unwrap_or_default();
                let (reason, error) = (failure.reason.label(), String::from_utf8_lossy(message));
                tracing::info!(pid = self.pid(), reason, %error, "a statement is not split after all");
                self.splitting.settings = None;
                let pause = if failure.reason == Unsplit::Groups { LONG_PAUSE } else { PAUSE };
                let until = self.shared.store.now() + pause.as_millis() as u64;
                split.analysis.scan.not_until(failure.reason, until);
                self.shared.metrics.unsplit(failure.reason).increment(1);
                return Some(Plan::Relay(split.fill));
            }
        }
        Some(Plan::Split(split))
    }

    /// Why a read is not split, or what comes next.
    fn split_step(&mut self, request: &ReadRequest<'_>, bypass: Option<Bypass>) -> Result<Step, Unsplit> {
        let [part] = request.statement.parts.as_slice() else { return Err(Unsplit::Shape) };
        if !part.may_be_split() || !request.statement.is_single_read() {
            return Err(Unsplit::Shape);
        }
        if request.statement.hint.parallel == Some(1) {
            return Err(Unsplit::Hint);
        }
        if self.splitting.account.is_none() {
            return Err(Unsplit::Login);
        }
        if self.block.status() != Status::Idle || self.pipeline.owes_client() || self.open.is_some() {
            return Err(Unsplit::Transaction);
        }
        if !request.stands {
            // The server may refuse it, since its result has another shape by now.
            return Err(Unsplit::Prepared);
        }
        match bypass {
            None | Some(Bypass::Rule | Bypass::Hint | Bypass::InFlight) => {}
            Some(Bypass::Settings) => return Ok(Step::Ask(Job::ReadSettings { fill: None })),
            Some(Bypass::Undecided) => return self.probe(request).map(Step::Ask),
            Some(Bypass::Temporary | Bypass::Encoding | Bypass::Disabled) => return Err(Unsplit::Settings),
            Some(Bypass::Catalog) => return Err(Unsplit::Catalog),
            Some(Bypass::Transaction | Bypass::Pipelined) => return Err(Unsplit::Transaction),
            Some(_) => return Err(Unsplit::Unsafe),
        }
        let database = self.visit.database();
        let (context, epoch) = (*self.context.digest().ok_or(Unsplit::Settings)?, database.epoch());
        let analysis = self.known.analysis(database, request.statement, request.types, &context, epoch);
        let analysis = analysis.ok_or(Unsplit::Settings)?;
        if analysis.read.is_err() {
            return Err(Unsplit::Unsafe);
        }
        if analysis.table.is_none() {
            return Err(Unsplit::Relation);
        }
        let verdict = analysis.scan.get(|| self.shared.store.now());
        // Only then, so that what is not split pays nothing for the rules.
        let is_forbidden = || {
            let subject = self.subject(request.statement, request.text, &analysis);
            !self.shared.rules.load().may_split(&subject)
        };
        match verdict {
            ScanVerdict::Not(reason) => Err(reason),
            ScanVerdict::Split | ScanVerdict::Unknown if is_forbidden() => Err(Unsplit::Rule),
            ScanVerdict::Split if self.splitting.settings.is_some() => Ok(Step::Split(analysis)),
            ScanVerdict::Split | ScanVerdict::Unknown => self.probe(request).map(Step::Ask),
        }
    }

    fn probe(&self, request: &ReadRequest<'_>) -> Result<Job, Unsplit> {
        let probe = ScanProbe::new(request).ok_or(Unsplit::Shape)?;
        Ok(Job::PlanScan(Box::new(probe)))
    }

    fn start_split(&self, request: &ReadRequest<'_>, analysis: &Analysis) -> Result<Rows, Unsplit> {
        let Splitting { account, settings, .. } = &self.splitting;
        let account = account.clone().ok_or(Unsplit::Login)?;
        let (settings, replay) = settings.clone().ok_or(Unsplit::Settings)?;
        let table = analysis.table.ok_or(Unsplit::Relation)?;
        let relation = analysis.relations.first().ok_or(Unsplit::Relation)?.clone();
        let part = request.statement.parts.first().ok_or(Unsplit::Shape)?;
        let parameters = request.bind.as_ref().map(|(_, bind)| Parameters::of(bind)).unwrap_or_default();
        let config = self.shared.config.load();
        let degree = config.parallel.degree(request.statement.hint.parallel);
        if degree < 2 {
            return Err(Unsplit::Busy);
        }
        let range = part.range(request.text, parameters.len() + 1).ok_or(Unsplit::Shape)?;
        let ordering = part.scan.as_ref().and_then(|scan| scan.ordering());
        let own_text = || part.text_of(request.text).to_vec();
        let grouping =
            part.groups.then(|| Grouping { text: own_text(), doubles: config.parallel.double_precision_sums });
        let sorting = match ordering {
            None => None,
            Some(ordering) => {
                let sorting = Sorting::new(ordering, own_text(), &parameters, request.types);
                Some(sorting.ok_or(Unsplit::Shape)?)
            }
        };
        let query = ScanQuery {
            account,
            settings,
            replay,
            table,
            relation,
            name: range.name,
            text: range.text,
            grouping,
            sorting,
            types: request.types.to_vec(),
            parameters,
            degree,
        };
        self.shared.parallel.start(&config.parallel, query)
    }
}
