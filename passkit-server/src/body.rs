use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_core::Stream;
use http_body::{Frame, SizeHint};

use crate::{ArchiveBody, source::ArchiveContent};

/// The body of a response of [`WalletService`](crate::WalletService).
pub struct ResponseBody(Content);

enum Content {
    /// The rest of the body, in one piece.
    Full(Bytes),
    Stream {
        chunks: Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>,
        /// How many bytes the stream has not given yet.
        left: u64,
        /// The last chunk. It is sent only after the stream ended without an error, because a
        /// client that has all promised bytes would not notice the error.
        last: Option<Bytes>,
    },
}

impl ResponseBody {
    pub(crate) fn empty() -> Self {
        Self(Content::Full(Bytes::new()))
    }
}

impl From<Bytes> for ResponseBody {
    fn from(bytes: Bytes) -> Self {
        Self(Content::Full(bytes))
    }
}

impl From<ArchiveBody> for ResponseBody {
    fn from(archive: ArchiveBody) -> Self {
        Self(match archive.content {
            ArchiveContent::Shared(bytes) => Content::Full(bytes),
            ArchiveContent::Stream(chunks) => Content::Stream {
                chunks,
                left: archive.length,
                last: None,
            },
        })
    }
}

impl http_body::Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.0 {
            Content::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Content::Stream { chunks, left, last } => loop {
                let chunk = match ready!(chunks.as_mut().poll_next(cx)) {
                    Some(Ok(chunk)) if chunk.is_empty() => continue,
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None if *left > 0 => {
                        return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
                    }
                    None => {
                        let last = last.take();
                        if last.is_some() {
                            self.0 = Content::Full(Bytes::new());
                        }
                        return Poll::Ready(last.map(|chunk| Ok(Frame::data(chunk))));
                    }
                };
                *left = match left.checked_sub(chunk.len() as u64) {
                    Some(rest) => rest,
                    None => {
                        let error =
                            io::Error::other("the archive is longer than its declared length");
                        return Poll::Ready(Some(Err(error)));
                    }
                };
                if *left > 0 {
                    return Poll::Ready(Some(Ok(Frame::data(chunk))));
                }
                *last = Some(chunk);
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(&self.0, Content::Full(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.0 {
            Content::Full(bytes) => bytes.len() as u64,
            Content::Stream { left, last, .. } => {
                left + last.as_ref().map_or(0, |chunk| chunk.len() as u64)
            }
        })
    }
}

impl std::fmt::Debug for ResponseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let size = http_body::Body::size_hint(self).exact();
        f.debug_struct("ResponseBody")
            .field("size", &size)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use http_body::Body;

    use super::*;

    /// Gives the chunks in order. `None` stands for "not ready".
    struct Chunks(Vec<Option<&'static str>>);

    impl Stream for Chunks {
        type Item = io::Result<Bytes>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            if self.0.is_empty() {
                return Poll::Ready(None);
            }
            self.0
                .remove(0)
                .map_or(Poll::Pending, |chunk| Poll::Ready(Some(Ok(chunk.into()))))
        }
    }

    /// Returns the next frame and the size of the rest.
    fn next(body: &mut ResponseBody) -> (Poll<Option<Bytes>>, Option<u64>) {
        let frame = Pin::new(&mut *body).poll_frame(&mut Context::from_waker(Waker::noop()));
        let data = frame.map(|frame| frame.map(|frame| frame.unwrap().into_data().unwrap()));
        (data, body.size_hint().exact())
    }

    fn ready(chunk: &'static str) -> Poll<Option<Bytes>> {
        Poll::Ready(Some(chunk.into()))
    }

    #[test]
    fn a_body_knows_its_size_and_its_end() {
        let empty = ResponseBody::empty();
        assert!(empty.is_end_stream());
        assert_eq!(empty.size_hint().exact(), Some(0));
        let mut full = ResponseBody::from(Bytes::from_static(b"bytes"));
        assert!(!full.is_end_stream());
        assert_eq!(format!("{full:?}"), "ResponseBody { size: Some(5), .. }");
        assert_eq!(next(&mut full), (ready("bytes"), Some(0)));
        assert!(full.is_end_stream());
    }

    #[test]
    fn the_last_chunk_counts_in_the_size_until_it_is_sent() {
        let chunks = Chunks(vec![Some("ab"), Some("cde"), None, None]);
        let mut body = ResponseBody::from(ArchiveBody::stream(5, chunks));
        assert_eq!(body.size_hint().exact(), Some(5));
        assert_eq!(next(&mut body), (ready("ab"), Some(3)));
        for _ in 0..2 {
            assert_eq!(next(&mut body), (Poll::Pending, Some(3)));
            assert!(!body.is_end_stream());
        }
        assert_eq!(next(&mut body), (ready("cde"), Some(0)));
        assert!(body.is_end_stream());
    }
}
