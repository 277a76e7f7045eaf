//! What anonymous callers can do to others: floods, slow senders, many connections, large and deep bodies. Callers are
//! told apart by their addresses, of which loopback has many.

mod support;
mod world;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use alloy::primitives::B256;
use cohort_protocol::release::{Challenge, Refusal};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};
use world::{Options, World};

/// How long a genuine request may take at most, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(8);

fn address(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

fn client(last: u8) -> reqwest::Client {
    reqwest::Client::builder().local_address(address(last)).build().unwrap()
}

fn server(world: &World) -> SocketAddr {
    world.url.socket_addrs(|| None).unwrap()[0]
}

async fn connect(world: &World, last: u8) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(address(last), 0))?;
    socket.connect(server(world)).await
}

/// Status and code of a release by a genuine agent at this address.
async fn release(world: &World, client: &reqwest::Client) -> Result<(), String> {
    let url = |path: &str| world.url.join(path).unwrap();
    let text = |error: reqwest::Error| format!("{error:?}");
    let challenge: Challenge =
        client.post(url("v1/challenge")).send().await.map_err(text)?.json().await.map_err(text)?;
    let asked = world.request_for(&challenge, B256::repeat_byte(3), |_| ());
    let response = client.post(url("v1/release")).json(&asked.request).send().await.map_err(text)?;
    if response.status() == 200 {
        return Ok(());
    }
    Err(response.json::<Refusal>().await.map_err(text)?.code)
}

/// Three addresses send quotes with good challenges and a broken signature, which costs the KMS most, as fast as it
/// takes them. A fourth gets every key that it asks for, at the first try.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_garbage_quotes_does_not_starve_a_genuine_agent() {
    let world = World::new(Options { requests_per_second: Some(5000.0), ..Options::default() }).await;
    let (world, over) = (Arc::new(world), Arc::new(AtomicBool::new(false)));
    let garbage: Vec<_> = (0..24u8)
        .map(|worker| {
            let (world, over) = (world.clone(), over.clone());
            tokio::spawn(async move {
                let (client, mut codes) = (client(11 + worker % 3), Vec::new());
                while !over.load(Ordering::Relaxed) {
                    let url = |path: &str| world.url.join(path).unwrap();
                    let Ok(response) = client.post(url("v1/challenge")).send().await else { continue };
                    let Ok(challenge) = response.json::<Challenge>().await else { continue };
                    let mut request =
                        world.request_for(&challenge, B256::repeat_byte(worker), |_| ()).request;
                    request.evidence.quote[640] ^= 1; // in the quote's own signature
                    let Ok(response) = client.post(url("v1/release")).json(&request).send().await else {
                        continue;
                    };
                    assert_ne!(response.status(), 200);
                    codes.push(response.json::<Refusal>().await.unwrap().code);
                }
                codes
            })
        })
        .collect();
    let (agent, mut slowest) = (client(20), Duration::ZERO);
    for _ in 0..4 {
        let asked = Instant::now();
        assert_eq!(release(&world, &agent).await, Ok(()));
        slowest = slowest.max(asked.elapsed());
    }
    over.store(true, Ordering::Relaxed);
    let mut codes = Vec::new();
    for worker in garbage {
        codes.extend(worker.await.unwrap());
    }
    let refused = codes.iter().filter(|code| *code == "evidence_quote_refused").count();
    println!("4 released, the slowest in {slowest:.0?}, beside {refused} garbage quotes");
    assert!(refused >= 24, "no flood: {codes:?}");
    assert!(slowest < 3 * PATIENCE, "{slowest:?}");
    assert_eq!(world.log_entries(), 4, "garbage left entries");
}

/// An address that asks too much is told so, and when to come back; others are not.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_asks_too_often_stops_itself_only() {
    let world = World::new(Options { requests_per_second: Some(20.0), ..Options::default() }).await;
    let (greedy, other) = (client(11), client(20));
    // A release costs ten requests: four of them are the burst, and two more come with each second.
    let url = world.url.join("v1/release").unwrap();
    let mut limited = None;
    for _ in 0..100 {
        let response = greedy.post(url.clone()).body("{}").send().await.unwrap();
        if response.status() != 400 {
            limited = Some(response);
            break;
        }
    }
    let limited = limited.expect("a limit");
    assert_eq!((limited.status().as_u16(), limited.headers()["retry-after"].as_bytes()), (429, &b"2"[..]));
    let body: Value = limited.json().await.unwrap();
    support::document::check_answer("POST", "/v1/release", 429, &body);
    assert_eq!(body["code"], "rate_limited");
    assert_eq!(release(&world, &other).await, Ok(()));
}

/// 400 connections from one address that never finish a header: a further one from there gets its answer, and so does
/// another address.
#[tokio::test(flavor = "multi_thread")]
async fn connections_that_wait_make_room_for_those_that_ask() {
    let world = World::new(Options::default()).await;
    let mut slow = Vec::new();
    for _ in 0..400 {
        let mut stream = connect(&world, 11).await.unwrap();
        let _ = stream.write_all(b"POST /v1/release HTTP/1.1\r\nhost: kms\r\nx-slow: ").await;
        slow.push(stream);
    }
    for last in [11, 20] {
        let answer = tokio::time::timeout(PATIENCE, release(&world, &client(last))).await;
        assert_eq!(answer.expect("an answer"), Ok(()));
    }
    // Those that had to go were the first.
    let mut byte = [0];
    let gone = tokio::time::timeout(PATIENCE, slow[0].read(&mut byte)).await.expect("it was closed");
    assert!(matches!(gone, Ok(0) | Err(_)));
    assert!(tokio::time::timeout(Duration::from_millis(50), slow[399].read(&mut byte)).await.is_err());
}

/// Bodies that never end hold none of the places of requests that are there.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_do_not_end_hold_no_places() {
    let world = World::new(Options { requests_per_second: Some(5000.0), ..Options::default() }).await;
    let mut slow = Vec::new();
    for path in ["/v1/release", "/v1/lease"] {
        for _ in 0..100 {
            let mut stream = connect(&world, 11).await.unwrap();
            let head = format!("POST {path} HTTP/1.1\r\nhost: kms\r\ncontent-length: 4000\r\n\r\n{{");
            stream.write_all(head.as_bytes()).await.unwrap();
            slow.push(stream);
        }
    }
    for last in [11, 20] {
        let answer = tokio::time::timeout(PATIENCE, release(&world, &client(last))).await;
        assert_eq!(answer.expect("an answer"), Ok(()));
    }
}

/// What is too large is refused before it is sent; what is too deep, where it is read. The service goes on.
#[tokio::test(flavor = "multi_thread")]
async fn large_and_deep_requests_are_refused() {
    let world = World::new(Options::default()).await;
    // Announced only: the answer comes without the body.
    for (path, bytes) in [("/v1/release", (2 << 20) + 1), ("/v1/lease", 4097), ("/v1/replica/vote", 4097)] {
        let mut stream = connect(&world, 11).await.unwrap();
        let head = format!("POST {path} HTTP/1.1\r\nhost: kms\r\ncontent-length: {bytes}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 413"), "{path}");
    }
    // Not announced.
    let mut stream = connect(&world, 11).await.unwrap();
    stream
        .write_all(b"POST /v1/lease HTTP/1.1\r\nhost: kms\r\ntransfer-encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    stream.write_all(format!("2000\r\n{}\r\n", " ".repeat(0x2000)).as_bytes()).await.unwrap();
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 413"));
    // Headers: one long, and many.
    for header in [format!("x: {}\r\n", "a".repeat(64 << 10)), "x: a\r\n".repeat(1000)] {
        let mut stream = connect(&world, 11).await.unwrap();
        let head = format!("POST /v1/challenge HTTP/1.1\r\nhost: kms\r\n{header}\r\n");
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = answer(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let deep = "[".repeat(1 << 20);
    let response =
        world.http.post(world.url.join("v1/release").unwrap()).body(deep.clone()).send().await.unwrap();
    assert_eq!(response.status(), 400);
    type Change = fn(&mut Value, &str);
    let parts: [(Change, &str); 6] = [
        (|body, deep| body["evidence"]["event_log"] = json!(deep), "evidence_"),
        (|body, deep| body["evidence"]["app_compose"] = json!(deep), "evidence_"),
        (|body, deep| body["evidence"]["collateral"]["tcb_info"] = json!(deep), "evidence_"),
        (|body, deep| body["evidence"]["collateral"]["qe_identity"] = json!(deep), "evidence_"),
        (|body, deep| body["datasets"][0]["envelope"] = json!(deep), "envelope_malformed"),
        (|body, deep| body["terms"] = json!(deep), "malformed"),
    ];
    for (row, (change, code)) in parts.into_iter().enumerate() {
        let mut body = serde_json::to_value(&world.request(|_| ()).await.request).unwrap();
        change(&mut body, &deep);
        let url = world.url.join("v1/release").unwrap();
        let response = world.http.post(url).json(&body).send().await.unwrap();
        let status = response.status();
        let refusal: Refusal = response.json().await.unwrap();
        assert!(
            status.is_client_error() && refusal.code.starts_with(code),
            "row {row}: {status} {refusal:?}"
        );
        assert!(refusal.message.len() < 1000, "row {row}: an answer of {} bytes", refusal.message.len());
    }
    assert_eq!(release(&world, &world.http).await, Ok(()));
}

/// What comes back until the connection ends or falls silent.
async fn answer(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    match tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect("an answer") {
        Ok(count) => String::from_utf8_lossy(&bytes[..count]).into_owned(),
        Err(_reset) => String::new(),
    }
}
