use std::{
    future::poll_fn,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{HeaderValue, Request, Response, StatusCode, request::Parts};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedSender, unbounded_channel},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use passkit_identity::types_of_certificate;

use super::{
    answer::Act,
    check::{self, Fault},
    options::Received,
    shared::Shared,
};
use crate::{lock::lock, request::uuid};

/// The largest payload in bytes that APNs accepts.
const MAX_PAYLOAD: usize = 4096;

/// How long reading goes on after a connection was closed.
const LINGER: Duration = Duration::from_secs(1);

/// Accepts connections. When the future is dropped, all connections end.
pub(crate) async fn accept(listener: TcpListener, tls: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((tcp, _)) = accepted {
                    connections.spawn(connection(tcp, tls.clone(), Arc::clone(&shared)));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// How a push ends its connection.
enum End {
    Close,
    GoAway { last: u32, reason: String },
}

struct Context {
    shared: Arc<Shared>,
    number: usize,
    /// The types that the client's certificate names, or `None` if the client has no certificate.
    certified: Option<Vec<String>>,
    received: Arc<Mutex<Vec<Received>>>,
    end: UnboundedSender<End>,
}

async fn connection(tcp: TcpStream, tls: TlsAcceptor, shared: Arc<Shared>) {
    // Answers are small. If the system refuses this option, they only arrive slightly later.
    let _ = tcp.set_nodelay(true);
    let mut tls = match tls.accept(tcp).into_fallible().await {
        Ok(tls) => tls,
        Err((error, mut tcp)) => {
            shared.trouble(format!("the TLS handshake failed: {error}"));
            return linger(&mut tcp).await;
        }
    };
    if let Some(End::GoAway { last, reason }) = serve(&mut tls, shared).await {
        go_away(&mut tls, last, &reason).await;
    }
}

async fn serve(tls: &mut TlsStream<TcpStream>, shared: Arc<Shared>) -> Option<End> {
    let (number, received) = shared.connected();
    let certified = tls
        .get_ref()
        .1
        .peer_certificates()
        .and_then(|chain| chain.first())
        .map(|certificate| types_of_certificate(certificate));
    let handshake = h2::server::Builder::new()
        .max_concurrent_streams(shared.options.max_concurrent_streams)
        .handshake::<_, Bytes>(tls)
        .await;
    let mut http = match handshake {
        Ok(http) => http,
        Err(error) => {
            shared.trouble(format!("HTTP/2 was not spoken: {error}"));
            return None;
        }
    };
    let (end, mut ended) = unbounded_channel();
    let context = Arc::new(Context {
        shared,
        number,
        certified,
        received,
        end,
    });
    loop {
        tokio::select! {
            accepted = http.accept() => {
                let (request, respond) = accepted?.ok()?;
                tokio::spawn(push(request, respond, Arc::clone(&context)));
            }
            end = ended.recv() => return end,
        }
    }
}

/// Writes a GOAWAY frame by hand, because the HTTP library can't send a reason with it. The library
/// never waits in the middle of a frame, so this one follows a complete frame.
async fn go_away(tls: &mut TlsStream<TcpStream>, last: u32, reason: &str) {
    let reason = json!({ "reason": reason }).to_string();
    let length = u32::try_from(8 + reason.len()).unwrap_or(8).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], 0x7, 0, 0, 0, 0, 0];
    frame.extend(last.to_be_bytes());
    frame.extend(0_u32.to_be_bytes());
    frame.extend(reason.as_bytes());
    // If the client is gone, the frame is not needed.
    let _ = tls.write_all(&frame).await;
    let _ = tls.flush().await;
    let _ = tls.shutdown().await;
    linger(tls).await;
}

/// Reads for a while longer. Closing with unread bytes would reset the connection, and the client
/// would lose the last frame.
async fn linger(stream: &mut (impl AsyncRead + Unpin)) {
    let mut rest = [0; 1024];
    let read_on = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = tokio::time::timeout(LINGER, read_on).await;
}

async fn push(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    context: Arc<Context>,
) {
    let (head, body) = request.into_parts();
    let Some(body) = payload(body).await else {
        return;
    };
    let fault = fault(&head, &body, &context);
    if let Some(violation) = fault.as_ref().and_then(|fault| fault.violation.as_deref()) {
        context.shared.violation(violation);
    }
    let topic = check::text(&head.headers, "apns-topic").unwrap_or_default();
    let token = check::token(&head).unwrap_or_default();
    let answer = context.shared.script.answer(token);
    // APNs answers with the id of the push, or with one that it makes.
    let id = head
        .headers
        .get("apns-id")
        .cloned()
        .or_else(|| uuid()?.parse().ok());
    let push = Received {
        topic: topic.into(),
        token: token.into(),
        headers: head.headers,
        connection: context.number,
        at: SystemTime::now(),
        payload: body,
        certified: context.certified.clone().unwrap_or_default(),
    };
    if context.shared.options.record {
        lock(&context.received).push(push.clone());
    }
    if let Some(hook) = &context.shared.options.on_push {
        hook(push).await;
    }
    if !answer.delay.is_zero() {
        tokio::time::sleep(answer.delay).await;
    }
    match answer.act {
        Act::Check => match fault {
            None => send(&mut respond, StatusCode::OK, id, Bytes::new()),
            Some(fault) => {
                let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::BAD_REQUEST);
                send(
                    &mut respond,
                    status,
                    id,
                    json!({ "reason": fault.reason }).to_string().into(),
                );
            }
        },
        Act::Respond(status, body) => send(&mut respond, status, id, body),
        Act::Stall => {
            // Waits until the client gives up.
            let _ = poll_fn(|context| respond.poll_reset(context)).await;
        }
        Act::Reset => respond.send_reset(Reason::INTERNAL_ERROR),
        Act::GoAway(reason) => {
            // The push itself was not processed, so the last processed stream is the one before it.
            // Clients use odd numbers for their streams.
            let last = respond.stream_id().as_u32().saturating_sub(2);
            let _ = context.end.send(End::GoAway { last, reason });
            let _ = poll_fn(|context| respond.poll_reset(context)).await;
        }
        Act::Close => {
            let _ = context.end.send(End::Close);
            let _ = poll_fn(|context| respond.poll_reset(context)).await;
        }
    }
}

/// Returns the payload. If it is too long, returns just enough to show that.
async fn payload(mut body: RecvStream) -> Option<Bytes> {
    let mut whole = Bytes::new();
    while let Some(part) = body.data().await {
        let part = part.ok()?;
        body.flow_control().release_capacity(part.len()).ok()?;
        whole = if whole.is_empty() {
            part
        } else {
            [whole, part].concat().into()
        };
        if whole.len() > MAX_PAYLOAD {
            break;
        }
    }
    Some(whole)
}

fn fault(head: &Parts, body: &[u8], context: &Context) -> Option<Fault> {
    if context.shared.options.lenient {
        let has_token = head.headers.contains_key("authorization");
        return (context.certified.is_none() && !has_token)
            .then(|| Fault::without_violation(403, "MissingProviderToken"));
    }
    if context.certified.is_none()
        && let Some(reason) = context
            .shared
            .token_keys
            .fault(head.headers.get("authorization"))
    {
        return Some(Fault::without_violation(403, reason));
    }
    check::fault(
        head,
        body,
        context.certified.as_deref(),
        &context.shared.known,
    )
}

fn send(
    respond: &mut SendResponse<Bytes>,
    status: StatusCode,
    id: Option<HeaderValue>,
    body: Bytes,
) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    if let Some(id) = id {
        response.headers_mut().insert("apns-id", id);
    }
    // If the client is gone, the answer is not needed.
    if let Ok(mut stream) = respond.send_response(response, body.is_empty())
        && !body.is_empty()
    {
        let _ = stream.send_data(body, true);
    }
}
