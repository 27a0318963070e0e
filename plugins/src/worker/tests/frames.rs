//! The language itself: every kind of message comes back as it went, and nothing that comes can do harm.

use proptest::prelude::*;

use super::{batch, call, code, sink};
use crate::{
    call::{
        CallError, HeaderValue, HttpError, HttpRequest, HttpResponse, Level, Operation, Outcome, Reply,
        ResolverAnswer, Usage,
    },
    worker::{
        protocol::{Answer, Down, Frame, Message, ProtocolError, Question, Up, decode, read},
        sandbox::Report,
    },
};

/// Over a pipe and back.
async fn sent<M: Message>(frames: Vec<Frame>) -> Vec<M> {
    let (mut here, mut there) = tokio::io::duplex(1000);
    let writing = async move {
        for frame in frames {
            frame.write(&mut here).await.unwrap();
        }
    };
    let reading = async {
        let mut messages = Vec::new();
        while let Some(message) = read(&mut there).await.unwrap() {
            messages.push(message);
        }
        messages
    };
    tokio::join!(writing, reading).1
}

fn request(body: Option<Vec<u8>>) -> HttpRequest {
    HttpRequest {
        method: "POST".to_owned(),
        url: "https://example.com".to_owned(),
        headers: vec![("authorization".to_owned(), HeaderValue::Bearer("token".to_owned()))],
        body,
        body_secrets: vec![("word".to_owned(), "token".to_owned())],
        timeout_ms: Some(1),
        max_response_bytes: None,
    }
}

#[tokio::test]
async fn big_byte_strings_travel_beside_their_message() {
    let payload = vec![7; 3_000_000];
    let run = Operation::Write(sink(), batch(payload.clone()));
    let run = Frame::encode(Down::Run { id: 1, hash: [2; 32], call: Box::new(call(run)) }).unwrap();
    assert!(run.parts().0.len() < 1000);
    let response = HttpResponse { status: 200, headers: Vec::new(), body: vec![1; 5000], truncated: true };
    let answer = Down::Answer { id: 1, question: 2, answer: Answer::Http(Ok(response.clone())) };
    let code = code();
    let frames = vec![
        Frame::load(code.hash, code.world, code.machine_code.clone()).unwrap(),
        run,
        Frame::encode(answer).unwrap(),
    ];
    let messages = sent::<Down>(frames).await;
    let [
        Down::Load { hash, world, machine_code },
        Down::Run { id: 1, call, .. },
        Down::Answer { answer: Answer::Http(Ok(back)), .. },
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!((*hash, *world, machine_code.as_slice()), (code.hash, code.world, &*code.machine_code));
    let Operation::Write(_, sent) = &call.operation else { panic!("{call:?}") };
    assert_eq!(*sent, batch(payload));
    assert_eq!(*back, response);
}

#[tokio::test]
async fn what_workers_say_comes_back_as_it_went() {
    let value = ResolverAnswer::Value {
        value: b"resolved".to_vec(),
        version: Some("1".to_owned()),
        ttl_seconds: Some(60),
        lease_id: None,
    };
    let reply = Reply {
        outcome: Outcome::Resolved(vec![value, ResolverAnswer::NotFound]),
        state_changes: vec![("k".to_owned(), None)],
        usage: Usage { cpu_us: 5, ..Usage::default() },
    };
    let frames = [
        Up::Hello(Report { missing: vec!["landlock: none".to_owned()], ..Report::default() }),
        Up::Ask { id: 1, question: 0, asked: Question::Http(request(None)) },
        Up::Ask { id: 1, question: 1, asked: Question::Http(request(Some(b"body".to_vec()))) },
        Up::Log { id: 1, level: Level::Warn, message: "m".to_owned(), fields: Vec::new() },
        Up::Done { id: 1, result: Ok(reply) },
        Up::Done { id: 2, result: Err(CallError::Cpu { limit_ms: 5 }) },
    ];
    let messages = sent::<Up>(frames.map(|message| Frame::encode(message).unwrap()).into()).await;
    let [
        Up::Hello(report),
        Up::Ask { asked: Question::Http(none), .. },
        Up::Ask { asked: Question::Http(some), .. },
        Up::Log { level: Level::Warn, .. },
        Up::Done { result: Ok(Reply { outcome: Outcome::Resolved(answers), .. }), .. },
        Up::Done { id: 2, result: Err(CallError::Cpu { limit_ms: 5 }) },
    ] = &messages[..]
    else {
        panic!("{messages:?}")
    };
    assert_eq!(report.missing, ["landlock: none"]);
    assert_eq!((none, some), (&request(None), &request(Some(b"body".to_vec()))));
    assert!(matches!(&answers[..], [ResolverAnswer::Value { value, .. }, ResolverAnswer::NotFound]
        if value == b"resolved"));
}

#[test]
fn a_tail_needs_a_place() {
    let none = Frame::encode(Up::Pong).unwrap();
    assert!(matches!(decode::<Up>(none.parts().0, vec![1]), Err(ProtocolError::OutOfPlace(_))));
    let denied = Answer::Http(Err(HttpError::Dns));
    let denied = Frame::encode(Down::Answer { id: 1, question: 1, answer: denied }).unwrap();
    assert!(decode::<Down>(denied.parts().0, vec![1]).is_err());
    let long = [none.parts().0, b"more".as_slice()].concat();
    assert!(matches!(decode::<Up>(&long, Vec::new()), Err(ProtocolError::OutOfPlace(_))));
}

#[tokio::test]
async fn a_length_is_not_believed() {
    let huge = [0xff; 8];
    assert!(matches!(read::<Up>(&mut huge.as_slice()).await, Err(ProtocolError::TooLarge { .. })));
    // Within the limit, but nothing comes.
    let promised = [(16_u32 << 20).to_le_bytes(), [0; 4]].concat();
    assert!(matches!(read::<Up>(&mut promised.as_slice()).await, Err(ProtocolError::Io(_))));
    assert!(matches!(read::<Up>(&mut [1_u8, 2].as_slice()).await, Err(ProtocolError::Io(_))));
    assert!(matches!(read::<Up>(&mut [0_u8; 0].as_slice()).await, Ok(None)));
}

proptest! {
    #[test]
    fn garbage_is_refused_or_read(head in proptest::collection::vec(any::<u8>(), 0..300), tail in any::<Vec<u8>>()) {
        let _ = decode::<Up>(&head, tail.clone());
        let _ = decode::<Down>(&head, tail);
    }

    /// What can be read can be said again, and is read as the same bytes.
    #[test]
    fn a_changed_byte_is_refused_or_means_something_else(at in 0_usize..400, to in any::<u8>()) {
        let operation = Operation::Write(sink(), batch(Vec::new()));
        let frame = Frame::encode(Down::Run { id: 1, hash: [2; 32], call: Box::new(call(operation)) }).unwrap();
        let mut head = frame.parts().0.to_vec();
        let at = at % head.len();
        head[at] = to;
        if let Ok(message) = decode::<Down>(&head, Vec::new()) {
            let again = Frame::encode(message).unwrap();
            let message = decode::<Down>(again.parts().0, Vec::new()).unwrap();
            let twice = Frame::encode(message).unwrap();
            prop_assert_eq!(again.parts(), twice.parts());
        }
    }
}
