//! What a fence does, and how many there can be.

use crate::kafka::{Orders, broker, verify};
use crate::worker::{Life, Worker};
use integration_tests::PATIENCE;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

fn progresses(worker: &mut Worker, upto: u64) {
    let began = Instant::now();
    while worker.checkpoint() < upto {
        let life = worker.live_on(Duration::from_millis(20));
        assert!(matches!(life, Life::Killed), "{}", worker.complaint());
        assert!(began.elapsed() < PATIENCE, "{}", worker.complaint());
    }
}

/// K11. Their checkpoints know nothing of each other, so it is the sink that has to tell.
#[test]
fn another_job_with_the_same_transactions_ends_the_one_that_was_there() {
    let Some(_) = broker() else { return };
    // More than the old one gets through before the other has begun, however long that takes on a busy machine.
    let orders = Orders::produce(400_000);
    let (here, elsewhere) = (tempfile::tempdir(), tempfile::tempdir());
    let (here, elsewhere) = (here.expect("a folder"), elsewhere.expect("a folder"));
    let mut old = Worker::start(&orders, here.path(), 2, true);
    progresses(&mut old, 2);
    let mut new = Worker::start_beside(&orders, elsewhere.path());
    progresses(&mut new, 1);
    let began = Instant::now();
    match old.live(Duration::from_secs(20)) {
        Life::Ended(code, complaint) => {
            assert_eq!(code, Some(101), "{complaint}");
            let words = "another run of this job has taken over its output to Kafka";
            assert!(complaint.contains(words), "{complaint}");
            println!("the old one stops after {:?}", began.elapsed());
        }
        Life::Killed => panic!("the old one goes on"),
    }
    progresses(&mut new, 3);
}

/// Asks for the next epoch of a transactional id, as `init_transactions` does, many times: the producer's id and its
/// epoch in the end.
fn epochs(address: &str, id: &str, upto: i16) -> (i64, i16) {
    let mut link = TcpStream::connect(address).expect("the broker is there");
    link.set_nodelay(true).expect("a socket");
    // InitProducerId, version 1: a correlation id, no client id, the transactional id, a timeout.
    let mut request = vec![0, 22, 0, 1, 0, 0, 0, 7, 0xff, 0xff];
    request.extend((id.len() as u16).to_be_bytes());
    request.extend(id.as_bytes());
    request.extend(10_000i32.to_be_bytes());
    let began = Instant::now();
    loop {
        let length = (request.len() as u32).to_be_bytes();
        link.write_all(&[&length, &request[..]].concat())
            .expect("it is sent");
        let mut answer = [0; 4 + 4 + 4 + 2 + 8 + 2];
        link.read_exact(&mut answer).expect("it is answered");
        let part = |from: usize, to: usize| &answer[from..to];
        let error = i16::from_be_bytes(part(12, 14).try_into().expect("two bytes"));
        let producer = i64::from_be_bytes(part(14, 22).try_into().expect("eight bytes"));
        let epoch = i16::from_be_bytes(part(22, 24).try_into().expect("two bytes"));
        // CONCURRENT_TRANSACTIONS: the one before is being ended.
        assert!(error == 0 || error == 51, "error {error}");
        assert!(began.elapsed() < PATIENCE, "it is at epoch {epoch}");
        if error == 0 && epoch >= upto {
            return (producer, epoch);
        }
    }
}

/// K13. Each transaction has a fresh epoch, of which a producer has 32,767; then it gets another id.
#[test]
fn a_producer_whose_epochs_end_gets_another_id_and_nothing_is_lost_or_doubled() {
    let Some(address) = broker() else { return };
    let orders = Orders::produce(12_000);
    let folder = tempfile::tempdir().expect("a folder");
    let mut worker = Worker::start(&orders, folder.path(), 1, true);
    progresses(&mut worker, 3);
    assert!(matches!(worker.live(Duration::ZERO), Life::Killed));
    let id = format!("{}-counts-0", orders.output);
    let began = Instant::now();
    let (before, epoch) = epochs(&address, &id, 32_760);
    println!(
        "producer {before} is at epoch {epoch} after {:?}",
        began.elapsed()
    );
    let mut worker = Worker::start(&orders, folder.path(), 1, true);
    match worker.live(PATIENCE) {
        Life::Ended(code, complaint) => assert_eq!(code, Some(0), "{complaint}"),
        Life::Killed => panic!("it does not come to its end: {}", worker.complaint()),
    }
    verify(&orders);
    let (after, epoch) = epochs(&address, &id, 0);
    println!("producer {before} has become {after}, at epoch {epoch}");
    assert!(after != before && epoch < 1000, "it was given another id");
}
