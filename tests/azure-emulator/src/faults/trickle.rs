//! A body that comes in small pieces.

use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::time::{Interval, interval};

/// The pause between two pieces, if there are enough bytes.
const PAUSE: Duration = Duration::from_millis(100);

/// Sends pieces at regular intervals: the first at once, the last at the end of the time.
pub struct Trickle {
    left: Bytes,
    pieces: usize,
    interval: Interval,
}

impl Trickle {
    pub fn new(body: Bytes, time: Duration) -> Self {
        let pauses = usize::try_from(time.as_millis().div_ceil(PAUSE.as_millis())).unwrap_or(usize::MAX);
        let pauses = pauses.clamp(1, body.len().max(2) - 1);
        // An interval must not be zero.
        let pause = time.div_f64(pauses as f64).max(Duration::from_nanos(1));
        Self {
            left: body,
            pieces: pauses + 1,
            interval: interval(pause),
        }
    }
}

impl Body for Trickle {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left.is_empty() {
            return Poll::Ready(None);
        }
        ready!(self.interval.poll_tick(cx));
        let length = self.left.len().div_ceil(self.pieces);
        self.pieces -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.left.split_to(length)))))
    }

    fn is_end_stream(&self) -> bool {
        self.left.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.len() as u64)
    }
}
