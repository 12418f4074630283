//! Services with faults that show only now and then. The long history finds them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Method, StatusCode, header::IF_MODIFIED_SINCE};
use passkit_conformance::{
    Limits, Outcome, Rule,
    service::{Target, cases, run},
};
use passkit_server::PassId;

use super::{
    altered::{altered, become_empty, is_fetch, is_list, tag},
    right::assert_accuses_nobody,
    sound::{Asked, Sound, Wrapped, Wrong},
    wrong::{answering, bare, let_in, named, registers},
};

pub(super) const LONG: &str = "history/long-history-adds-up";

/// Each fault is found long before this time is over.
const TIME: Duration = Duration::from_secs(300);
const SEED: u64 = 7;

/// The name of a fault, the rule that the case must name, and the faulty service.
type Fault = (&'static str, Rule, fn() -> Target);

pub(super) const FAULTS: &[Fault] = &[
    (
        "one registration in 50 is lost",
        Rule::LIST_1,
        one_registration_in_50_is_lost,
    ),
    (
        "a change is lost if a device asks at the same time",
        Rule::LIST_5,
        a_change_is_lost_if_a_device_asks_at_the_same_time,
    ),
    (
        "one of two instances keeps empty lists in a cache",
        Rule::LIST_5,
        one_of_two_instances_keeps_lists,
    ),
    (
        "one new version in 20 is answered 304",
        Rule::GET_2,
        one_new_version_in_20_is_304,
    ),
    (
        "old content gets the date of new content if both meet",
        Rule::GET_2,
        old_content_gets_a_new_date,
    ),
    (
        "one wrong token in 20 is accepted",
        Rule::AUTH_2,
        one_wrong_token_in_20_is_accepted,
    ),
    (
        "one unregistration in 50 is forgotten",
        Rule::UNR_1,
        one_unregistration_in_50_is_forgotten,
    ),
];

pub(super) fn target(make: fn() -> Target) -> Target {
    make().lasting(TIME).seeded(SEED)
}

/// Returns a function that is true once in `count` calls.
fn once_in(count: usize) -> impl Fn() -> bool + Send + Sync + 'static {
    let calls = AtomicUsize::new(0);
    move || calls.fetch_add(1, SeqCst) % count == count - 1
}

/// Makes a target over the service that `make` makes from the sound service.
fn wrong(make: impl FnOnce(Sound) -> Wrong) -> Target {
    let sound = Sound::new();
    sound.target_with(make(sound.clone()))
}

fn one_registration_in_50_is_lost() -> Target {
    let is_lost = once_in(50);
    wrong(|sound| {
        let is_lost = Arc::new(is_lost);
        answering(sound, move |sound, asked| {
            let is_lost = is_lost.clone();
            async move {
                let registers = registers(&asked);
                let path = asked.uri().clone();
                let headers = asked.headers().clone();
                let answer = sound.answer(asked).await;
                if registers && answer.status() == StatusCode::CREATED && is_lost() {
                    let mut unregister = Asked::default();
                    *unregister.method_mut() = Method::DELETE;
                    *unregister.uri_mut() = path;
                    *unregister.headers_mut() = headers;
                    sound.answer(unregister).await;
                }
                answer
            }
        })
    })
}

fn one_unregistration_in_50_is_forgotten() -> Target {
    let is_forgotten = Arc::new(once_in(50));
    wrong(|sound| {
        answering(sound, move |sound, asked| {
            let is_forgotten = is_forgotten.clone();
            async move {
                if *asked.method() == Method::DELETE
                    && has_right_token(&sound, &asked).await
                    && is_forgotten()
                {
                    return bare(200);
                }
                sound.answer(asked).await
            }
        })
    })
}

/// Returns whether the token of an unregistration opens the pass.
async fn has_right_token(sound: &Sound, asked: &Asked) -> bool {
    let mut fetch = Asked::default();
    let mut parts = asked.uri().path().rsplit('/');
    let (Some(serial), Some(type_id)) = (parts.next(), parts.next()) else {
        return false;
    };
    *fetch.uri_mut() = format!("/v1/passes/{type_id}/{serial}").parse().unwrap();
    *fetch.headers_mut() = asked.headers().clone();
    sound.answer(fetch).await.status() != StatusCode::UNAUTHORIZED
}

/// Counts the lists in progress. Each takes some milliseconds. The service knows no 304, because the
/// date of a lost change does not move.
fn a_change_is_lost_if_a_device_asks_at_the_same_time() -> Target {
    let sound = Sound::new();
    let asking = Arc::new(AtomicUsize::new(0));
    let counted = asking.clone();
    let target = sound.target_with(answering(sound.clone(), move |sound, mut asked| {
        let asking = counted.clone();
        async move {
            if !is_list(&asked) {
                asked.headers_mut().remove(IF_MODIFIED_SINCE);
                return sound.answer(asked).await;
            }
            asking.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(2)).await;
            let answer = sound.answer(asked).await;
            asking.fetch_sub(1, SeqCst);
            answer
        }
    }));
    target.changed_by(move |pass| {
        let (sound, asking) = (sound.clone(), asking.clone());
        async move {
            sound.renew(&pass);
            match asking.load(SeqCst) {
                0 => sound.mark(&pass).await,
                _ => Ok(()),
            }
        }
    })
}

fn one_of_two_instances_keeps_lists() -> Target {
    let sound = Sound::new();
    let kept = Arc::new(Mutex::new(HashMap::new()));
    let caching = answering(sound.clone(), move |sound, asked| {
        let kept = kept.clone();
        async move {
            if !is_list(&asked) || tag(&asked).is_none() {
                return sound.answer(asked).await;
            }
            let uri = asked.uri().clone();
            // Each empty answer is given three times.
            let known = kept.lock().unwrap().remove(&uri);
            if let Some((answer, more)) = known {
                if more > 1 {
                    let again = (http::Response::clone(&answer), more - 1);
                    kept.lock().unwrap().insert(uri, again);
                }
                return answer;
            }
            let answer = sound.answer(asked).await;
            if answer.status() == StatusCode::NO_CONTENT {
                kept.lock().unwrap().insert(uri, (answer.clone(), 2));
            }
            answer
        }
    });
    let instance = Target::in_process(Wrapped(caching), Limits::default());
    Target::spread(sound.target(), vec![instance])
}

fn one_new_version_in_20_is_304() -> Target {
    let is_wrong = once_in(20);
    wrong(|sound| {
        altered(sound, move |asked, answer| {
            let is_new = is_fetch(asked)
                && asked.headers().contains_key(IF_MODIFIED_SINCE)
                && answer.status() == StatusCode::OK;
            if is_new && is_wrong() {
                become_empty(answer, 304);
            }
        })
    })
}

/// Reads the content some time before the date.
fn old_content_gets_a_new_date() -> Target {
    wrong(|sound| {
        answering(sound, |sound, asked| async move {
            let subject = named(&asked).filter(|_| is_fetch(&asked));
            let Some((type_id, serial, token)) = subject else {
                return sound.answer(asked).await;
            };
            let pass = PassId::new(type_id, serial).unwrap();
            let content = sound.passes.build(&pass, token);
            tokio::time::sleep(Duration::from_millis(5)).await;
            let mut answer = sound.answer(asked).await;
            if answer.status() == StatusCode::OK {
                *answer.body_mut() = content.into();
            }
            answer
        })
    })
}

/// Replaces the token of a request with the right one.
fn one_wrong_token_in_20_is_accepted() -> Target {
    let is_accepted = Arc::new(once_in(20));
    wrong(|sound| {
        answering(sound, move |sound, mut asked| {
            let is_accepted = is_accepted.clone();
            async move {
                let answer = sound.answer(asked.clone()).await;
                if answer.status() != StatusCode::UNAUTHORIZED || !is_accepted() {
                    return answer;
                }
                let_in(&mut asked);
                sound.answer(asked).await
            }
        })
    })
}

/// Two instances of a correct service over one store and one source. Each answers half of the
/// requests.
async fn two_instances() -> (Target, [Arc<AtomicUsize>; 2]) {
    let sound = Sound::pushing().await;
    let answered: [Arc<AtomicUsize>; 2] = Default::default();
    let instance = |number: usize| {
        let count = answered[number].clone();
        sound.target_with(answering(sound.clone(), move |sound, asked| {
            count.fetch_add(1, SeqCst);
            async move { sound.answer(asked).await }
        }))
    };
    (Target::spread(instance(0), vec![instance(1)]), answered)
}

#[tokio::test(flavor = "multi_thread")]
async fn two_instances_over_one_store_pass_all() {
    let (target, answered) = two_instances().await;
    let report = run(&cases(), &target.lasting(Duration::from_secs(3))).await;
    assert_accuses_nobody("two instances", &report);
    let [one, other] = answered.map(|count| count.load(SeqCst));
    assert!(one > 300 && other > 300, "{one} {other}");
}

/// Two real servers with different addresses.
#[tokio::test(flavor = "multi_thread")]
async fn two_servers_over_one_store_pass_all() {
    let sound = Sound::pushing().await;
    let (one, other) = (
        sound.target_on_loopback().await,
        sound.target_on_loopback().await,
    );
    let report = run(&cases(), &Target::spread(one, vec![other])).await;
    assert_accuses_nobody("two servers", &report);
    assert!(
        report.target.contains(", http://127.0.0.1:"),
        "{}",
        report.target
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_is_gone_ends_the_run() {
    let sound = Sound::new();
    let gone = Target::at("http://127.0.0.1:9", Limits::default()).unwrap();
    let target = Target::spread(sound.target_on_loopback().await, vec![gone]);
    let report = run(&cases(), &target).await;
    let stopped = report.stopped().unwrap();
    assert!(
        stopped.contains("http://127.0.0.1:9 can't be reached"),
        "{stopped}"
    );
}

/// A failure names the seed of its round, which finds the fault at once.
#[tokio::test(flavor = "multi_thread")]
async fn the_seed_in_a_report_finds_the_fault_again() {
    let case = cases().into_iter().find(|one| one.case.id == LONG).unwrap();
    let find = async |seed| {
        let sound = Sound::new();
        // A second call with a wrong token is accepted, if the first was refused just before.
        let last: Mutex<HashMap<String, Method>> = Mutex::default();
        let faulty = altered(sound.clone(), move |asked, answer| {
            let path = asked.uri().path();
            if !path.contains("/registrations/") || !path.ends_with("/A-3") {
                return;
            }
            let refused = answer.status() == StatusCode::UNAUTHORIZED;
            let method = asked.method().clone();
            let mut last = last.lock().unwrap();
            let before = last.remove(path);
            if refused && method == Method::DELETE && before == Some(Method::POST) {
                *answer.status_mut() = StatusCode::OK;
            }
            if refused {
                last.insert(path.to_owned(), method);
            }
        });
        let target = sound.target_with(faulty).lasting(TIME).seeded(seed);
        match case.run(&target).await.outcome {
            Outcome::Fail(violation) => violation.actual().to_owned(),
            other => panic!("{other:?}"),
        }
    };
    let found = find(SEED).await;
    let (_, seed) = found.split_once("the seed ").unwrap();
    let seed = seed.split(' ').next().unwrap().parse().unwrap();
    assert!(
        find(seed).await.contains(&format!("the seed {seed} ")),
        "{found}"
    );
}
