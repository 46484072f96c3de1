//! Lines over connections that end, break and come again.

use super::{Reconnect, SocketLines, SocketSink};
use crate::OnError;
use crate::testing::{Reading, read_all, write_all};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

#[test]
fn lines_are_read_until_the_server_closes() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for piece in ["one\ntw", "o\r\n\n", "long line\n", "four"] {
            stream.write_all(piece.as_bytes()).unwrap();
        }
    });
    let source = SocketLines::connect(address)
        .max_line_bytes(5)
        .on_error(OnError::Skip);
    let got = read_all(&source, 2);
    server.join().unwrap();
    assert_eq!(got.fault, None);
    assert_eq!(got.values, ["one", "two", "", "four"]);
    assert_eq!(got.dead_letters, 1);
}

#[test]
fn a_line_of_broken_text_is_passed_over_or_ends_the_job() {
    let serve = || {
        let (listener, address) = listen();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"one\nbro\xffken\ntwo\n").unwrap();
        });
        (server, SocketLines::connect(address))
    };
    let (server, source) = serve();
    let got = read_all(&source.on_error(OnError::Skip), 1);
    server.join().unwrap();
    assert_eq!((got.fault, got.dead_letters), (None, 1));
    assert_eq!(got.values, ["one", "two"]);
    let (server, source) = serve();
    let got = read_all(&source, 1);
    server.join().unwrap();
    let fault = got.fault.expect("it ends the job").to_string();
    assert!(fault.contains("it is not UTF-8 text"), "{fault}");
    assert_eq!(got.values, ["one"]);
}

#[test]
fn a_line_without_end_takes_bounded_memory() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        for _ in 0..300 {
            stream.write_all(&[b'x'; 10_000]).unwrap();
        }
        stream.write_all(b"\nok\n").unwrap();
    });
    let got = read_all(&SocketLines::connect(address).on_error(OnError::Skip), 1);
    server.join().unwrap();
    assert_eq!((got.values, got.dead_letters), (vec!["ok".to_owned()], 1));
}

#[test]
fn it_connects_again_where_that_is_wished() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        for n in 0..3 {
            let (mut stream, _) = listener.accept().unwrap();
            writeln!(stream, "{n}").unwrap();
        }
    });
    let again = Reconnect::After {
        pause: Duration::from_millis(1),
        attempts: 2,
    };
    let source = SocketLines::connect(&address).reconnect(again);
    let got = read_all(&source, 1);
    server.join().unwrap();
    assert_eq!(got.values, ["0", "1", "2"]);
    let fault = got.fault.expect("nobody listens any more").to_string();
    assert!(
        fault.starts_with(&format!("no lines from {address}: ")),
        "{fault}"
    );
}

#[test]
fn a_reader_that_is_dropped_ends_its_connection() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"one\n").unwrap();
        stream.read(&mut [0]).unwrap_or(0)
    });
    let source = SocketLines::connect(address);
    let mut reading = Reading::open(&source, 0, 1).unwrap();
    reading.until(|records| records.len() == 1).unwrap();
    let began = Instant::now();
    drop(reading);
    assert_eq!(server.join().unwrap(), 0);
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_address_is_checked() {
    let fault = read_all(&SocketLines::connect("localhost"), 1)
        .fault
        .unwrap()
        .to_string();
    assert_eq!(
        fault,
        "'localhost' is no address to connect to; give it as host:port"
    );
}

#[test]
fn records_are_sent_as_lines() {
    let (listener, address) = listen();
    let server = thread::spawn(move || {
        let mut text = String::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        text
    });
    write_all(&SocketSink::connect(address), 1, 0..3).unwrap();
    assert_eq!(server.join().unwrap(), "0\n1\n2\n");
    let (listener, address) = listen();
    drop(listener);
    let fault = write_all(&SocketSink::connect(&address), 1, 0..3)
        .unwrap_err()
        .to_string();
    assert!(
        fault.starts_with(&format!("can't send to {address}: ")),
        "{fault}"
    );
}
