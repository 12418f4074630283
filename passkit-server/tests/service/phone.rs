//! A device. It stores one tag for each type and one date for each pass, and sends both back
//! unchanged.

use std::collections::BTreeMap;

use passkit_server::{PassId, store::RegistrationStore};

use crate::app::{App, PUSH};

pub(crate) struct Phone<'a, S: ?Sized> {
    app: &'a App<S>,
    pub(crate) device: String,
    pub(crate) push_token: String,
    tags: BTreeMap<String, String>,
    dates: BTreeMap<PassId, String>,
    content: BTreeMap<PassId, String>,
}

impl<'a, S: RegistrationStore + ?Sized + 'static> Phone<'a, S> {
    pub(crate) fn new(app: &'a App<S>, device: &str) -> Self {
        Self {
            app,
            device: device.to_owned(),
            push_token: PUSH.to_owned(),
            tags: BTreeMap::new(),
            dates: BTreeMap::new(),
            content: BTreeMap::new(),
        }
    }

    pub(crate) async fn register(&self, pass: &PassId) -> u16 {
        self.app
            .status(self.app.register_call(&self.device, pass, &self.push_token))
            .await
    }

    pub(crate) async fn unregister(&self, pass: &PassId) -> u16 {
        self.app.unregister(&self.device, pass).await
    }

    /// Asks what changed, with the stored tag. A 204 gives an empty list.
    pub(crate) async fn list(&mut self, type_id: &str) -> Vec<String> {
        let since = self.tags.get(type_id).map(String::as_str);
        match self.app.list(&self.device, type_id, since).await {
            Some(listed) => {
                self.tags.insert(type_id.to_owned(), listed.tag);
                listed.serials
            }
            None => Vec::new(),
        }
    }

    /// Fetches a pass with the stored date, and stores the result.
    pub(crate) async fn fetch(&mut self, pass: &PassId) -> u16 {
        let mut call = self.app.get_call(pass);
        if let Some(date) = self.dates.get(pass) {
            call = call.header("if-modified-since", date);
        }
        let answer = self.app.send(call).await;
        if answer.status == 200 {
            let date = answer
                .header("last-modified")
                .expect("every 200 has Last-Modified");
            self.dates.insert(pass.clone(), date.to_owned());
            self.content.insert(
                pass.clone(),
                String::from_utf8(answer.body.to_vec()).unwrap(),
            );
        }
        answer.status
    }

    /// Does what a phone does after a registration and after a push: list, then fetch the listed
    /// passes.
    pub(crate) async fn sync(&mut self, type_id: &str) -> Vec<(String, u16)> {
        let mut fetched = Vec::new();
        for serial in self.list(type_id).await {
            let status = self.fetch(&PassId::new(type_id, &serial).unwrap()).await;
            fetched.push((serial, status));
        }
        fetched
    }

    /// Forgets the date of a pass, as if the pass was opened from a file again.
    pub(crate) fn forget_date(&mut self, pass: &PassId) {
        self.dates.remove(pass);
    }

    pub(crate) fn tag(&self, type_id: &str) -> Option<&str> {
        self.tags.get(type_id).map(String::as_str)
    }

    pub(crate) fn date(&self, pass: &PassId) -> Option<&str> {
        self.dates.get(pass).map(String::as_str)
    }

    pub(crate) fn content(&self, pass: &PassId) -> Option<&str> {
        self.content.get(pass).map(String::as_str)
    }
}
