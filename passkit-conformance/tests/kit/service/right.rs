//! Services that are correct, but differ from the sound service. Each of them passes all cases.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE, LAST_MODIFIED};
use passkit_conformance::{
    Limits, Outcome, Report,
    service::{Target, cases, run},
};
use passkit_server::PassId;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};

use super::{
    altered::{is_fetch, set},
    sound::{Answered, Asked, Sound, Wrong},
    wrong::{answering, named, say},
};

fn seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Returns the sound service with different dates. `header` makes the Last-Modified of a version.
fn dated<R>(sound: Sound, header: fn(u64) -> R) -> Wrong
where
    R: Future<Output = u64> + Send + 'static,
{
    answering(sound, move |sound, mut asked: Asked| async move {
        let Some((type_id, serial, _)) = named(&asked).filter(|_| is_fetch(&asked)) else {
            return sound.answer(asked).await;
        };
        let pass = PassId::new(type_id, serial).unwrap();
        let modified = sound.store.pass_state(&pass).await.unwrap().last_modified;
        let since = asked
            .headers_mut()
            .remove(IF_MODIFIED_SINCE)
            .and_then(|date| httpdate::parse_http_date(date.to_str().unwrap()).ok())
            .map(|date| date.duration_since(UNIX_EPOCH).unwrap().as_secs());
        let mut answer = sound.answer(asked).await;
        if answer.status() != 200 {
            return answer;
        }
        answer.headers_mut().remove(ETAG);
        if since.is_some_and(|since| modified <= since) {
            *answer.body_mut() = Bytes::new();
            answer.headers_mut().remove(CONTENT_TYPE);
            answer.headers_mut().remove(CONTENT_LENGTH);
            say(&mut answer, 304);
        }
        set(&mut answer, LAST_MODIFIED, &date(header(modified).await));
        answer
    })
}

/// The date of a version may be the next second. Until then, the header is the time of the answer.
fn dated_at_most_now(sound: Sound) -> Wrong {
    dated(sound, |modified| async move { modified.min(seconds()) })
}

/// The date of a version may be the next second. The answer waits until that second.
fn dated_in_time(sound: Sound) -> Wrong {
    dated(sound, |modified| async move {
        while seconds() < modified {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        modified
    })
}

/// Makes a faulty service, whose header may be later than the time of the answer.
pub(super) fn dated_ahead(sound: Sound) -> Wrong {
    dated(sound, |modified| async move { modified })
}

fn slow(sound: Sound) -> Wrong {
    answering(sound, |sound, asked| async move {
        tokio::time::sleep(Duration::from_millis(20)).await;
        sound.answer(asked).await
    })
}

/// Answers without an ETag and without other headers that a service may leave out.
fn plain(sound: Sound) -> Wrong {
    answering(sound, |sound, asked| async move {
        let mut answer: Answered = sound.answer(asked).await;
        answer
            .headers_mut()
            .retain_only(&[CONTENT_TYPE, LAST_MODIFIED, http::header::ALLOW]);
        answer
    })
}

trait RetainOnly {
    fn retain_only(&mut self, names: &[http::HeaderName]);
}

impl RetainOnly for http::HeaderMap {
    fn retain_only(&mut self, names: &[http::HeaderName]) {
        let others: Vec<_> = self
            .keys()
            .filter(|name| !names.contains(name))
            .cloned()
            .collect();
        for name in others {
            self.remove(name);
        }
    }
}

pub(super) fn assert_accuses_nobody(name: &str, report: &Report) {
    println!("{name}: {report}");
    let accused = report
        .results
        .iter()
        .any(|result| !matches!(result.outcome, Outcome::Pass | Outcome::Skip(_)));
    assert!(!accused, "{name}: {report}");
}

async fn passes(name: &str, wrong: fn(Sound) -> Wrong) {
    let sound = Sound::new();
    let report = run(&cases(), &sound.target_with(wrong(sound.clone()))).await;
    assert_accuses_nobody(name, &report);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_header_is_at_most_now_passes_all() {
    passes("at most now", dated_at_most_now).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_waits_for_its_date_passes_all() {
    passes("in time", dated_in_time).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_service_passes_all() {
    passes("slow", slow).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_extra_headers_passes_all() {
    passes("plain", plain).await;
}

/// Forwards requests to the sound service, and closes the connection after each answer without
/// notice.
async fn closing(sound: &Sound) -> Target {
    let behind = sound.listen().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                let (mut head, length) = head(&mut client).await;
                if head.is_empty() {
                    return;
                }
                head.push_str("connection: close\r\n\r\n");
                let mut request = head.into_bytes();
                let start = request.len();
                request.resize(start + length, 0);
                if client.read_exact(&mut request[start..]).await.is_err() {
                    return;
                }
                let mut behind = TcpStream::connect(behind).await.unwrap();
                let _ = behind.write_all(&request).await;
                let mut behind = BufReader::new(behind);
                let (head, _) = self::head(&mut behind).await;
                let head: String = head
                    .split_inclusive("\r\n")
                    .filter(|line| !line.to_ascii_lowercase().starts_with("connection:"))
                    .collect();
                let mut answer = format!("{head}\r\n").into_bytes();
                let _ = behind.read_to_end(&mut answer).await;
                let _ = client.get_mut().write_all(&answer).await;
            });
        }
    });
    sound.known(Target::at(&url, Limits::default()).unwrap())
}

/// Reads the lines of a head, without the empty line. Returns them and the length of the body.
async fn head(from: &mut BufReader<TcpStream>) -> (String, usize) {
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if from.read_line(&mut line).await.unwrap_or(0) == 0 {
            return (String::new(), 0);
        }
        if line == "\r\n" {
            return (head, length);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_closes_its_connections_passes_all() {
    let report = run(&cases(), &closing(&Sound::new()).await).await;
    assert_accuses_nobody("closing", &report);
}
