//! A node's way to the others that on demand takes out the rule by which the node follows them, so
//! that the judge can be judged.

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use prost::Message as _;
use shoal_node::{
    coordination::{NodeName, Partition},
    delivery::Tail,
    group::{Actor, Elsewhere, Feed, Passage, Place},
};
use shoal_protocol::{RecordFrame, Refusal, Seq, UserId, wire};
use tokio::{sync::mpsc, time::sleep};

/// How often it is looked whether the node has taken a record.
const LOOK: Duration = Duration::from_millis(1);

/// Has a node take whatever its feeds bring.
#[must_use]
pub fn as_it_comes(links: Arc<dyn Elsewhere>) -> Arc<dyn Elsewhere> {
    Arc::new(AsItComes(links))
}

struct AsItComes(Arc<dyn Elsewhere>);

#[async_trait]
impl Elsewhere for AsItComes {
    fn place(&self, partition: Partition) -> Place {
        self.0.place(partition)
    }

    fn publish(&self, to: &NodeName, passage: Passage) {
        self.0.publish(to, passage);
    }

    async fn change(
        &self,
        home: &NodeName,
        actor: Actor,
        change: wire::Change,
    ) -> Result<wire::Changed, Refusal> {
        self.0.change(home, actor, change).await
    }

    async fn notify(&self, home: &NodeName, user: UserId, notice: wire::Notice) -> Result<(), Refusal> {
        self.0.notify(home, user, notice).await
    }

    fn follow(&self, home: &NodeName, tail: &Arc<Tail>) -> Feed {
        let (to, feed) = Feed::new();
        tokio::spawn(bring(self.0.follow(home, tail), Arc::downgrade(tail), to));
        feed
    }

    fn signal(&self, home: &NodeName, datagram: Bytes) {
        self.0.signal(home, datagram);
    }

    async fn attendance(
        &self,
        node: &NodeName,
        asked: wire::GetAttendance,
    ) -> Result<wire::Attendance, Refusal> {
        self.0.attendance(node, asked).await
    }

    async fn owner(&self, node: &NodeName, asked: wire::GetOwner) -> Result<wire::Owner, Refusal> {
        self.0.owner(node, asked).await
    }
}

/// What the node wants next it gets; what it would drop or refuse stands in its tail before it can.
async fn bring(mut feed: Feed, tail: Weak<Tail>, to: mpsc::Sender<Vec<RecordFrame>>) {
    loop {
        let frames = tokio::select! {
            biased;
            () = to.closed() => return,
            frames = feed.next() => frames,
        };
        let Some(frames) = frames else { return };
        for frame in frames {
            let Some(tail) = tail.upgrade() else { return };
            let wanted = tail.tail();
            if seq(&frame) != Some(wanted) {
                tail.append([frame], &BTreeMap::new());
                continue;
            }
            if to.send(vec![frame]).await.is_err() {
                return;
            }
            while tail.tail() == wanted && !to.is_closed() {
                sleep(LOOK).await;
            }
        }
    }
}

fn seq(frame: &RecordFrame) -> Option<Seq> {
    let record = wire::Record::decode(frame.record()).expect("a record decodes");
    Seq::new(record.seq)
}
