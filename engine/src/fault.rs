//! Why a subtask stopped: one type that carries the operator, the record's origin and the cause.
//!
//! Hot code returns [`Flow`], which is one register wide and free where nothing can fail. A panic in
//! user code is turned into a fault by whoever runs the subtask; [`PanicMark`] tells it where the
//! panic came from and costs nothing while nobody panics, since it acts only in the landing pad.

use serde::{Deserialize, Serialize};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::rc::Rc;
use std::sync::Once;

/// The result of pushing something through a chain.
pub type Flow<T = ()> = Result<T, Fault>;

/// Whose fault it is: decides whether a restart can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// User code or user data: the same record fails again.
    User,
    /// Something outside: a file, a broker, a disk. A retry may help.
    External,
    /// A broken invariant of Tidegate itself.
    Internal,
    /// Another run of the job has taken over: a restart would only take it back.
    Fenced,
}

/// A failure with its place. Printed as one line.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault(Box<Detail>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Detail {
    kind: FaultKind,
    message: String,
    operator: Option<String>,
    origin: Option<String>,
}

impl Fault {
    #[cold]
    fn new(kind: FaultKind, message: impl fmt::Display) -> Self {
        let message = message.to_string();
        Fault(Box::new(Detail {
            kind,
            message,
            operator: None,
            origin: None,
        }))
    }

    /// A failure of user code or user data.
    #[cold]
    pub fn user(message: impl fmt::Display) -> Self {
        Fault::new(FaultKind::User, message)
    }

    /// A failure of something outside, such as a file.
    #[cold]
    pub fn external(message: impl fmt::Display) -> Self {
        Fault::new(FaultKind::External, message)
    }

    /// A broken invariant of Tidegate.
    #[cold]
    pub fn internal(message: impl fmt::Display) -> Self {
        Fault::new(FaultKind::Internal, message)
    }

    /// The fault of a panic that was caught, placed by the marks it passed on its way.
    #[cold]
    pub fn from_panic(payload: &(dyn Any + Send)) -> Self {
        if let Some(fault) = payload.downcast_ref::<Fault>() {
            let mut fault = fault.clone();
            let site = SITE.take();
            fault.0.operator = fault.0.operator.or(site.operator);
            fault.0.origin = fault.0.origin.or(site.origin);
            return fault;
        }
        let text = payload
            .downcast_ref::<&str>()
            .map(|s| (*s).to_owned())
            .or_else(|| payload.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "a panic without a message".to_owned());
        let site = SITE.take();
        let place = site
            .location
            .map(|l| format!(" at {l}"))
            .unwrap_or_default();
        let mut fault = Fault::user(format_args!("panicked{place}: {text}"));
        fault.0.operator = site.operator;
        fault.0.origin = site.origin;
        fault
    }

    /// Leaves code that has no room for an error in its answer: [`catch`] returns this fault, whatever
    /// user code lies between.
    #[cold]
    pub fn unwind(self) -> ! {
        panic::resume_unwind(Box::new(self))
    }

    /// Another run of the job has taken over; the job is not restarted.
    #[cold]
    pub fn fenced(message: impl fmt::Display) -> Self {
        Fault::new(FaultKind::Fenced, message)
    }

    /// Names the operator, unless a more inner place did so already.
    #[cold]
    pub fn at(mut self, operator: &str) -> Self {
        self.0.operator.get_or_insert_with(|| operator.to_owned());
        self
    }

    /// Names where the record came from, unless that is known already.
    #[cold]
    pub fn on_record(mut self, origin: impl FnOnce() -> String) -> Self {
        self.0.origin.get_or_insert_with(origin);
        self
    }

    /// Whose fault it is.
    pub fn kind(&self) -> FaultKind {
        self.0.kind
    }

    /// The operator that failed, where known.
    pub fn operator(&self) -> Option<&str> {
        self.0.operator.as_deref()
    }

    /// Where the record came from that was being processed, where known.
    pub fn origin(&self) -> Option<&str> {
        self.0.origin.as_deref()
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.0.message
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(operator) = &self.0.operator {
            write!(f, "operator '{operator}': ")?;
        }
        f.write_str(&self.0.message)?;
        if let Some(origin) = &self.0.origin {
            write!(f, " (on {origin})")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.0.kind)
    }
}

impl std::error::Error for Fault {}

#[derive(Default)]
struct Site {
    operator: Option<String>,
    origin: Option<String>,
    /// File, line and column of the panic.
    location: Option<String>,
}

thread_local! {
    static SITE: RefCell<Site> =
        const { RefCell::new(Site { operator: None, origin: None, location: None }) };
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs code and turns its panic into a fault that names operator, origin, place and message.
pub fn catch<R>(code: impl FnOnce() -> Flow<R>) -> Flow<R> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !CATCHING.get() {
                return before(info);
            }
            let location = info.location().map(ToString::to_string);
            SITE.with_borrow_mut(|site| site.location = location);
        }));
    });
    CATCHING.set(true);
    let result = panic::catch_unwind(AssertUnwindSafe(code));
    CATCHING.set(false);
    result.unwrap_or_else(|payload| Err(Fault::from_panic(payload.as_ref())))
}

/// Remembers an operator's name if a panic unwinds through it. The innermost mark wins. It refers to the
/// field that holds the name, so that there is nothing to be kept at hand while nobody panics.
pub struct PanicMark<'a>(&'a Rc<str>);

impl<'a> PanicMark<'a> {
    /// Marks the code until [`PanicMark::passed`].
    #[inline(always)]
    pub fn new(operator: &'a Rc<str>) -> Self {
        PanicMark(operator)
    }

    /// The code came to its end: nothing is remembered.
    #[inline(always)]
    pub fn passed(self) {
        std::mem::forget(self);
    }
}

impl Drop for PanicMark<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        remember_operator(self.0);
    }
}

#[cold]
#[inline(never)]
fn remember_operator(name: &Rc<str>) {
    if !std::thread::panicking() {
        return;
    }
    SITE.with_borrow_mut(|site| {
        site.operator.get_or_insert_with(|| name.to_string());
    });
}

/// Remembers the position in a batch if a panic unwinds through it.
pub struct OriginMark<F: Fn() -> String>(pub F);

impl<F: Fn() -> String> OriginMark<F> {
    /// The code came to its end: nothing is remembered.
    #[inline(always)]
    pub fn passed(self) {
        std::mem::forget(self);
    }
}

impl<F: Fn() -> String> Drop for OriginMark<F> {
    #[cold]
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let origin = (self.0)();
        SITE.with_borrow_mut(|site| {
            site.origin.get_or_insert(origin);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_prints_place_cause_and_origin() {
        let fault = Fault::user("no such month: 13").at("parse").at("outer");
        let fault = fault.on_record(|| "a.csv:7".into());
        assert_eq!(
            fault.to_string(),
            "operator 'parse': no such month: 13 (on a.csv:7)"
        );
        assert_eq!(fault.kind(), FaultKind::User);
    }

    #[test]
    fn a_flow_is_one_register() {
        assert_eq!(size_of::<Flow>(), size_of::<usize>());
    }

    #[test]
    fn the_innermost_mark_names_a_panic() {
        let fault = catch(|| -> Flow {
            let names = [Rc::from("outer"), Rc::from("inner")];
            let outer = PanicMark::new(&names[0]);
            let inner = PanicMark::new(&names[1]);
            if std::hint::black_box(true) {
                panic!("boom");
            }
            inner.passed();
            outer.passed();
            Ok(())
        });
        let text = fault.expect_err("it panics").to_string();
        assert!(text.starts_with("operator 'inner': panicked at "), "{text}");
        assert!(text.ends_with(": boom"), "{text}");
        let again = Fault::from_panic(&"later");
        assert_eq!(again.operator(), None, "a mark is used once");
    }
}
