//! What the runtime leans on in actix 0.13, each fact a test: if one changes, this says so first.

use actix::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

#[derive(Message)]
#[rtype(result = "()")]
struct Number(usize);

#[derive(Message)]
#[rtype(result = "Vec<usize>")]
struct Seen;

#[derive(Message)]
#[rtype(result = "()")]
struct Panic;

/// Notes what it is given, in a mailbox of one.
#[derive(Default)]
struct Notes {
    seen: Vec<usize>,
    stopped: Arc<AtomicUsize>,
}

impl Actor for Notes {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(1);
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        self.stopped.fetch_add(1, SeqCst);
    }
}

impl Handler<Number> for Notes {
    type Result = ();

    fn handle(&mut self, Number(n): Number, _: &mut Self::Context) {
        self.seen.push(n);
    }
}

impl Handler<Seen> for Notes {
    type Result = Vec<usize>;

    fn handle(&mut self, _: Seen, _: &mut Self::Context) -> Vec<usize> {
        self.seen.clone()
    }
}

impl Handler<Panic> for Notes {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("on purpose");
    }
}

#[test]
fn do_send_ignores_the_mailbox_capacity_and_keeps_order() {
    System::new().block_on(async {
        let notes = Notes::default().start();
        for n in 0..10_000 {
            notes.do_send(Number(n));
        }
        let seen = notes.send(Seen).await.expect("it lives");
        assert_eq!(seen, (0..10_000).collect::<Vec<_>>());
    });
}

#[test]
fn try_send_refuses_what_a_full_mailbox_can_not_take() {
    System::new().block_on(async {
        let notes = Notes::default().start();
        let sent = (0..100)
            .filter(|n| notes.try_send(Number(*n)).is_ok())
            .count();
        assert!(sent < 100, "{sent} were taken");
        let seen = notes.send(Seen).await.expect("it lives");
        assert_eq!(seen.len(), sent);
    });
}

/// Hands a token around until it is worn out, by telling itself or by its own address.
struct Busy {
    left: usize,
    by_address: bool,
    others: Arc<AtomicUsize>,
    others_when_done: Arc<AtomicUsize>,
}

impl Actor for Busy {
    type Context = Context<Self>;
}

impl Handler<Number> for Busy {
    type Result = ();

    fn handle(&mut self, number: Number, ctx: &mut Self::Context) {
        if self.left == 0 {
            self.others_when_done
                .store(self.others.load(SeqCst), SeqCst);
            return;
        }
        self.left -= 1;
        if self.by_address {
            ctx.address().do_send(number);
        } else {
            ctx.notify(number);
        }
    }
}

struct Other(Arc<AtomicUsize>);

impl Actor for Other {
    type Context = Context<Self>;
}

impl Handler<Number> for Other {
    type Result = ();

    fn handle(&mut self, _: Number, _: &mut Self::Context) {
        self.0.fetch_add(1, SeqCst);
    }
}

#[test]
fn a_mailbox_is_drained_without_a_budget() {
    let others = Arc::new(AtomicUsize::new(0));
    let when_done = Arc::new(AtomicUsize::new(usize::MAX));
    System::new().block_on(async {
        let other = Other(others.clone()).start();
        let busy = Busy {
            left: 1_000,
            by_address: true,
            others: others.clone(),
            others_when_done: when_done.clone(),
        }
        .start();
        busy.do_send(Number(0));
        other.do_send(Number(0));
        while when_done.load(SeqCst) == usize::MAX {
            actix_rt::task::yield_now().await;
        }
    });
    // An actor that sends to its own address keeps its turn: what it is for must be scheduled anew.
    assert!(when_done.load(SeqCst) <= 1, "{when_done:?}");
}

#[test]
fn after_a_panic_stopped_may_run_but_the_actor_takes_no_message_more() {
    let stopped = Arc::new(AtomicUsize::new(0));
    let arbiter_thread = {
        let stopped = stopped.clone();
        std::thread::spawn(move || {
            let system = System::new();
            system.block_on(async {
                let notes = Notes {
                    stopped,
                    ..Notes::default()
                }
                .start();
                let answer = notes.send(Panic).await;
                assert!(answer.is_err(), "the caller learns of it");
                assert!(
                    notes.send(Seen).await.is_err(),
                    "and so does everyone after"
                );
                assert!(!notes.connected());
            });
        })
    };
    arbiter_thread.join().expect("the panic stayed in its task");
    // `stopped` proves nothing about a good end: it has run here too.
    assert_eq!(stopped.load(SeqCst), 1);
}

/// Counts its starts.
struct Restarted(Arc<AtomicUsize>);

impl Actor for Restarted {
    type Context = Context<Self>;

    fn started(&mut self, _: &mut Self::Context) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl actix::Supervised for Restarted {}

impl Handler<Panic> for Restarted {
    type Result = ();

    fn handle(&mut self, _: Panic, _: &mut Self::Context) {
        panic!("on purpose");
    }
}

#[test]
fn the_supervisor_of_actix_does_not_restart_after_a_panic() {
    let starts = Arc::new(AtomicUsize::new(0));
    System::new().block_on(async {
        let counted = starts.clone();
        let actor = actix::Supervisor::start(move |_| Restarted(counted));
        assert!(actor.send(Panic).await.is_err());
        actix_rt::time::sleep(Duration::from_millis(50)).await;
        assert!(!actor.connected());
    });
    assert_eq!(starts.load(SeqCst), 1);
}

#[test]
fn a_drop_guard_in_the_actor_runs_whatever_ends_it() {
    struct Guard(Arc<AtomicUsize>);
    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    struct Guarded {
        _guard: Guard,
    }
    impl Actor for Guarded {
        type Context = Context<Self>;
    }
    impl Handler<Panic> for Guarded {
        type Result = ();
        fn handle(&mut self, _: Panic, _: &mut Self::Context) {
            panic!("on purpose");
        }
    }
    impl Handler<Number> for Guarded {
        type Result = ();
        fn handle(&mut self, _: Number, ctx: &mut Self::Context) {
            ctx.stop();
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    System::new().block_on(async {
        let start = || {
            Guarded {
                _guard: Guard(dropped.clone()),
            }
            .start()
        };
        let (panics, stops) = (start(), start());
        assert!(panics.send(Panic).await.is_err());
        let _ = stops.send(Number(0)).await;
        while dropped.load(SeqCst) < 2 {
            actix_rt::task::yield_now().await;
        }
    });
}
