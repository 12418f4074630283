//! Targets that are wrong. The run ends before the first case, and says how to fix the target.

use passkit_conformance::{
    Limits,
    service::{Target, cases, run},
};
use passkit_server::{AuthToken, PassId};

use super::{
    altered::{altered, become_empty, is_fetch, set},
    sound::{Answered, SUBJECTS, Sound, Wrong},
    wrong::{answering, bare},
};

/// Returns the reason why the run ended before the first case.
async fn refused(target: &Target) -> String {
    let report = run(&cases(), target).await;
    let counts = report.counts();
    assert_eq!(counts.error, counts.total(), "{report}");
    let reason = report.stopped().unwrap();
    assert!(!reason.contains('\n'), "{reason}");
    reason.to_owned()
}

/// Returns a target with these tokens that answers as `wrong` does.
fn target(wrong: fn(Sound) -> Wrong, token: impl Fn(&str) -> String) -> Target {
    let sound = Sound::new();
    // The passes of the sound target have the right tokens, so this target starts without passes.
    let bare = Target::in_process(
        super::sound::Wrapped(wrong(sound.clone())),
        Limits::default(),
    );
    SUBJECTS.iter().fold(bare, |target, (type_id, serial, of)| {
        target.with(
            PassId::new(type_id, serial).unwrap(),
            AuthToken::new(&token(of)).unwrap(),
        )
    })
}

fn as_it_is(sound: Sound) -> Wrong {
    altered(sound, |_, _| {})
}

#[tokio::test]
async fn wrong_tokens_are_named() {
    let reason = refused(&target(as_it_is, |token| format!("{token}x"))).await;
    assert!(reason.contains("authenticationToken"), "{reason}");
}

#[tokio::test]
async fn one_wrong_token_does_not_end_the_run() {
    let first = SUBJECTS[0].2;
    let almost = target(as_it_is, |token| match token {
        token if token == first => format!("{token}x"),
        token => token.to_owned(),
    });
    let all = cases();
    let one: Vec<_> = all
        .iter()
        .filter(|one| one.case.id == "get/works-unregistered")
        .collect();
    let report = run(one, &almost).await;
    assert_eq!((report.counts().fail, report.stopped()), (1, None));
}

#[tokio::test]
async fn a_url_that_ends_in_v1_is_named() {
    let sound = Sound::new();
    let address = sound.listen().await;
    for end in ["v1", "v1/"] {
        let url = format!("http://{address}/{end}");
        let target = sound.known(Target::at(&url, Limits::default()).unwrap());
        let reason = refused(&target).await;
        assert!(
            reason.ends_with(&format!("use --url http://{address}/")),
            "{reason}"
        );
    }
}

#[tokio::test]
async fn a_url_of_something_else_is_named() {
    let sound = Sound::new();
    let url = format!("http://{}/elsewhere", sound.listen().await);
    let target = sound.known(Target::at(&url, Limits::default()).unwrap());
    let reason = refused(&target).await;
    assert!(
        reason.contains("none of the passes") && reason.contains("webServiceURL"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_redirect_to_https_is_named() {
    let moved = |sound: Sound| {
        altered(sound, |asked, answer: &mut Answered| {
            let to = format!("https://in-process{}", asked.uri().path());
            become_empty(answer, 301);
            set(answer, http::header::LOCATION, &to);
        })
    };
    let reason = refused(&target(moved, str::to_owned)).await;
    assert!(reason.contains("use --url with https://"), "{reason}");
}

#[tokio::test]
async fn a_site_that_answers_everything_is_named() {
    let site = |sound: Sound| answering(sound, |_, _| async { bare(200) });
    let reason = refused(&target(site, str::to_owned)).await;
    assert!(reason.contains("answers 200 to everything"), "{reason}");
}

#[tokio::test]
async fn a_change_that_changes_nothing_is_named() {
    let idle = target(as_it_is, str::to_owned).changed_by(|_| async { Ok(()) });
    let reason = refused(&idle).await;
    assert!(reason.contains("changes nothing"), "{reason}");
    let failing = target(as_it_is, str::to_owned)
        .changed_by(|_| async { Err("the database sleeps".to_owned()) });
    let reason = refused(&failing).await;
    assert!(reason.ends_with("the database sleeps"), "{reason}");
}

/// The preflight does not stop the run, because the cases report this fault.
#[tokio::test]
async fn a_service_that_serves_old_content_is_tested() {
    let sound = Sound::new();
    let old: std::sync::Arc<std::sync::Mutex<std::collections::HashMap<String, Answered>>> =
        Default::default();
    let stale = altered(sound.clone(), move |asked, answer| {
        if is_fetch(asked) && answer.status() == 200 {
            let mut old = old.lock().unwrap();
            let first = old
                .entry(asked.uri().path().to_owned())
                .or_insert_with(|| answer.clone());
            *answer = first.clone();
        }
    });
    let all = cases();
    let one: Vec<_> = all
        .iter()
        .filter(|one| one.case.id == "get/changed-pass-has-new-content")
        .collect();
    let report = run(one, &sound.target_with(stale)).await;
    assert_eq!((report.counts().fail, report.stopped()), (1, None));
}

#[tokio::test]
async fn a_change_that_shows_later_is_named() {
    let sound = Sound::new();
    let later = sound.clone();
    let target = sound.target().changed_by(move |pass| {
        let sound = later.clone();
        async move {
            tokio::spawn(async move {
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
                sound.change(pass).await
            });
            Ok(())
        }
    });
    let reason = refused(&target).await;
    assert!(reason.contains("change_wait"), "{reason}");
}
