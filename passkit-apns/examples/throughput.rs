//! Measures how many pushes per second the sender makes, and how many the bare HTTP/2 client makes
//! over the same number of connections. The two take turns against a local push service: `cargo run
//! --release -p passkit-apns --example throughput`.

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use passkit_apns::{
    ApnsSender, Config, Identity,
    local::{Issued, LocalApns, Options},
};
use passkit_server::{
    identifiers::{PushToken, TypeIdentifier},
    push::{PushOutcome, PushSender},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;

const TOPIC: &str = "pass.com.example.ticket";
const CONNECTIONS: usize = 2;
const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_secs(2);

type BoxError = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let apns = LocalApns::start(Options::new().without_record()).await?;
    let issued = apns.issue(TOPIC)?;
    let topic = TypeIdentifier::new(TOPIC)?;
    let identity =
        Identity::from_pem(&topic, issued.certificate.as_bytes(), issued.key.as_bytes())?;
    let config = Config::new()
        .endpoint(apns.host(), apns.port())
        .root_certificates(apns.root_pem())
        .connections(CONNECTIONS)
        .identity(identity);
    let sender = Arc::new(ApnsSender::new(config)?);
    let mut bare = Vec::new();
    for _ in 0..CONNECTIONS {
        bare.push(connect(&apns, &issued).await?);
    }
    let expiration = format!("{}", std::time::UNIX_EPOCH.elapsed()?.as_secs() + 604_800);

    for parallel in [16, 64, 256] {
        let mut rates = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let through_sender = |number: usize| {
                let (sender, topic) = (Arc::clone(&sender), topic.clone());
                async move {
                    let token = PushToken::new(&format!("{number:064x}"))?;
                    match sender.push(&topic, &token).await {
                        PushOutcome::Sent => Ok(()),
                        other => Err(format!("{other:?}").into()),
                    }
                }
            };
            rates.0.push(measure(parallel, through_sender).await?);
            let over_bare = |number: usize| {
                let mut requests = bare[number % CONNECTIONS].clone();
                let request = Request::post(format!("https://127.0.0.1/3/device/{number:064x}"))
                    .header("apns-topic", TOPIC)
                    .header("apns-push-type", "background")
                    .header("apns-priority", "5")
                    .header("apns-expiration", &expiration)
                    .header("apns-id", "123e4567-e89b-42d3-a456-426655440000")
                    .body(Full::new(Bytes::from_static(b"{}")));
                async move {
                    let answer = requests.send_request(request?).await?;
                    let status = answer.status();
                    let _ = answer.into_body().collect().await?;
                    if status.is_success() {
                        Ok(())
                    } else {
                        Err(format!("status {status}").into())
                    }
                }
            };
            rates.1.push(measure(parallel, over_bare).await?);
        }
        let (sender, bare) = (median(rates.0), median(rates.1));
        println!(
            "{parallel:>3} at once: sender {sender:.0}/s, bare client {bare:.0}/s, ratio {:.2}",
            sender / bare
        );
    }
    let violations = apns.violations();
    if violations.is_empty() {
        Ok(())
    } else {
        Err(format!("{:?}", violations.first()).into())
    }
}

/// Returns how many pushes per second `parallel` tasks make.
async fn measure<F, P>(parallel: usize, push: F) -> Result<f64, BoxError>
where
    F: Fn(usize) -> P,
    P: Future<Output = Result<(), BoxError>> + Send + 'static,
{
    let start = Instant::now();
    let mut pushes = JoinSet::new();
    let mut count = 0_u32;
    for number in 0..parallel {
        pushes.spawn(push(number));
    }
    while start.elapsed() < ROUND {
        let Some(done) = pushes.join_next().await else {
            break;
        };
        done??;
        count += 1;
        pushes.spawn(push(parallel + count as usize));
    }
    let rate = f64::from(count) / start.elapsed().as_secs_f64();
    while let Some(done) = pushes.join_next().await {
        done??;
    }
    Ok(rate)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

async fn connect(apns: &LocalApns, issued: &Issued) -> Result<SendRequest<Full<Bytes>>, BoxError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(apns.root_pem().as_bytes())?)?;
    let mut tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(
                issued.certificate.as_bytes(),
            )?],
            PrivateKeyDer::from_pem_slice(issued.key.as_bytes())?,
        )?;
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let tcp = TcpStream::connect((apns.host(), apns.port())).await?;
    tcp.set_nodelay(true)?;
    let name = ServerName::try_from(apns.host())?;
    let tls = TlsConnector::from(Arc::new(tls)).connect(name, tcp).await?;
    let (requests, connection) = Builder::new(TokioExecutor::new())
        .handshake(TokioIo::new(tls))
        .await?;
    tokio::spawn(connection);
    Ok(requests)
}
