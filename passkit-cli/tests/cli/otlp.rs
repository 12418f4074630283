//! Traces for an OpenTelemetry collector. The receiver here decodes what the service sends, with the messages of OTLP.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;

use crate::{
    archives::{pass, replace, token_of},
    metrics,
    program::{Service, authorization, eventually, send},
    push::{METRICS, TYPE},
};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector.
#[derive(Default)]
struct Receiver {
    bodies: Mutex<Vec<Vec<u8>>>,
    is_silent: Mutex<bool>,
    speaks: Condvar,
}

impl Receiver {
    /// Starts a collector that answers, or that answers nothing until it is told to. Returns its URL.
    fn start(is_silent: bool) -> (Arc<Self>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Arc::new(Self::default());
        *receiver.is_silent.lock().unwrap() = is_silent;
        let shared = receiver.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = shared.clone();
                std::thread::spawn(move || shared.answer(stream));
            }
        });
        (receiver, url)
    }

    fn answer(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if reader.read_until(b'\n', &mut head).unwrap_or(0) == 0 {
                    return;
                }
            }
            let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
            assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
            assert!(
                head.contains("content-type: application/x-protobuf"),
                "{head}"
            );
            let (_, length) = head.split_once("content-length: ").unwrap();
            let length = length.lines().next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            self.bodies.lock().unwrap().push(body);
            let silent = self.is_silent.lock().unwrap();
            drop(self.speaks.wait_while(silent, |silent| *silent).unwrap());
            // The client may have given up.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    }

    fn speak(&self) {
        *self.is_silent.lock().unwrap() = false;
        self.speaks.notify_all();
    }

    fn batches(&self) -> Vec<ExportTraceServiceRequest> {
        let bodies = self.bodies.lock().unwrap();
        bodies
            .iter()
            .map(|body| ExportTraceServiceRequest::decode(&**body).unwrap())
            .collect()
    }

    fn spans(&self) -> Vec<Span> {
        self.batches()
            .into_iter()
            .flat_map(|batch| batch.resource_spans)
            .flat_map(|of_resource| of_resource.scope_spans)
            .flat_map(|of_scope| of_scope.spans)
            .collect()
    }

    fn has(&self, name: &str) -> bool {
        self.spans().iter().any(|span| span.name == name)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attributes(attributes: &[KeyValue]) -> HashMap<&str, String> {
    attributes
        .iter()
        .map(|one| {
            let value = match one.value.as_ref().unwrap().value.as_ref().unwrap() {
                Value::StringValue(text) => text.clone(),
                Value::IntValue(number) => number.to_string(),
                other => format!("{other:?}"),
            };
            (&*one.key, value)
        })
        .collect()
}

fn service(url: &str) -> Service {
    let mut service = Service::new().given(&METRICS);
    fs::write(service.passes().join("a.pkpass"), pass(TYPE, "A-1", "one")).unwrap();
    service.set_variable("OTEL_EXPORTER_OTLP_ENDPOINT", url);
    service
}

#[test]
fn the_way_of_a_change_reaches_a_collector() {
    let (receiver, url) = Receiver::start(false);
    let mut service = service(&url);
    service.set_variable("OTEL_SERVICE_NAME", "wallet-of-a-shop");
    service.set_variable("OTEL_BSP_SCHEDULE_DELAY", "20");
    service.start();
    let traceparent = format!("00-{TRACE}-{PARENT}-01");
    let authorization = authorization(TYPE, "A-1");
    let headers = [
        ("Authorization", &*authorization),
        ("traceparent", &*traceparent),
    ];
    let get = format!("/v1/passes/{TYPE}/A-1");
    assert_eq!(service.register("device-of-a-phone", TYPE, "A-1"), 201);
    assert_eq!(service.send("GET", &get, &headers, b"").status, 200);
    // A header that is not valid starts a new trace.
    let invalid = [
        ("Authorization", &*authorization),
        ("traceparent", "00-zz-1"),
    ];
    assert_eq!(service.send("GET", &get, &invalid, b"").status, 200);
    let (_, tag) = service.list("device-of-a-phone", TYPE, None).unwrap();
    let file = service.passes().join("a.pkpass");
    replace(&file, &pass(TYPE, "A-1", "two"));
    eventually("the change is listed", || {
        service
            .list("device-of-a-phone", TYPE, Some(&tag))
            .is_some()
    });
    assert_eq!(
        send(&metrics::address(&service), "GET", "/readyz", &[], b"")
            .unwrap()
            .status,
        200
    );
    eventually("spans arrive while the service runs", || {
        receiver.has("publish")
    });
    assert_eq!(service.get(TYPE, "A-1", None).status, 200);
    assert!(service.stop("TERM").success());

    let spans = receiver.spans();
    let in_trace: Vec<&Span> = spans
        .iter()
        .filter(|span| hex(&span.trace_id) == TRACE)
        .collect();
    let request = in_trace.iter().find(|span| span.name == "GET").unwrap();
    assert_eq!(hex(&request.parent_span_id), PARENT);
    let of_request = attributes(&request.attributes);
    assert_eq!(of_request["http.request.method"], "GET");
    assert_eq!(of_request["http.response.status_code"], "200");
    let fetch = in_trace.iter().find(|span| span.name == "fetch").unwrap();
    assert_eq!(fetch.parent_span_id, request.span_id);
    let of_fetch = attributes(&fetch.attributes);
    assert_eq!((&*of_fetch["type_id"], &*of_fetch["serial"]), (TYPE, "A-1"));
    // Everything else is in other traces. The answer of /readyz is in none.
    assert_eq!(in_trace.len(), 2);
    assert_eq!(spans.iter().filter(|span| span.name == "fetch").count(), 3);
    assert!(receiver.has("list") && receiver.has("POST"));
    assert_eq!(
        spans.iter().filter(|span| span.name == "GET").count(),
        spans
            .iter()
            .filter(|span| ["fetch", "list"].contains(&&*span.name))
            .count()
    );
    for batch in receiver.batches() {
        for of_resource in &batch.resource_spans {
            let resource = of_resource.resource.as_ref().unwrap();
            assert_eq!(
                attributes(&resource.attributes)["service.name"],
                "wallet-of-a-shop"
            );
        }
    }
    let sent = receiver.bodies.lock().unwrap().concat();
    for secret in [&*token_of(TYPE, "A-1"), "device-of-a-phone", "c0ffee"] {
        assert!(
            !sent
                .windows(secret.len())
                .any(|window| window == secret.as_bytes()),
            "{secret}"
        );
    }
}

#[test]
fn a_silent_collector_costs_spans_and_nothing_else() {
    let (receiver, url) = Receiver::start(true);
    let mut service = service(&url);
    service.set_variable("OTEL_BSP_SCHEDULE_DELAY", "20");
    service.set_variable("OTEL_BSP_MAX_QUEUE_SIZE", "100");
    service.set_variable("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "50");
    service.start();
    assert_eq!(service.get(TYPE, "A-1", None).status, 200);
    eventually("a batch arrives", || !receiver.spans().is_empty());
    // Each request has two spans.
    for _ in 0..300 {
        assert_eq!(service.get(TYPE, "A-1", None).status, 200);
    }
    receiver.speak();
    assert!(service.stop("TERM").success());
    let arrived = receiver.spans().len();
    assert!((2..=200).contains(&arrived), "{arrived}");

    // Nobody waits for the collector when the service stops.
    *receiver.is_silent.lock().unwrap() = true;
    service.start();
    assert_eq!(service.get(TYPE, "A-1", None).status, 200);
    assert!(service.stop("TERM").success());
}

#[test]
fn an_absent_collector_is_a_warning() {
    let mut service = service("http://127.0.0.1:1");
    service.set_variable("OTEL_BSP_SCHEDULE_DELAY", "20");
    service.start();
    for _ in 0..20 {
        assert_eq!(service.get(TYPE, "A-1", None).status, 200);
    }
    eventually("it is logged", || service.said().contains("gets no traces"));
    let said = service.stop_and_hear();
    // There is at most one line a minute. This test may take minutes.
    assert!(
        (1..=10).contains(&said.matches("gets no traces").count()),
        "{said}"
    );
}

#[test]
fn wrong_variables_are_refused_with_one_line() {
    for (name, value, mention) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "http/protobuf"),
        (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "not a URL",
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ] {
        let mut service = service("http://127.0.0.1:1");
        service.set_variable(name, value);
        let said = service.refusal().unwrap();
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains(mention), "{said}");
    }
}
