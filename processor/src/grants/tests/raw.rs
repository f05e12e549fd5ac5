//! Calls and requests as somebody makes them who does not use our client.

use prost::Message as _;
use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status};

use bytes::{Buf as _, BufMut as _};
use navvy_protocol::processor::v1::DESCRIPTORS;

/// A method, as the compiler of the protocol describes it.
#[derive(Debug, Clone)]
pub struct Method {
    pub name: String,
    pub input: DescriptorProto,
}

fn file() -> FileDescriptorProto {
    let set = FileDescriptorSet::decode(DESCRIPTORS).unwrap();
    set.file.into_iter().find(|file| file.package() == "navvy.processor.v1").unwrap()
}

/// All methods of a service.
pub fn methods(service: &str) -> Vec<Method> {
    let file = file();
    let service = file.service.iter().find(|it| it.name() == service).unwrap();
    let method = |method: &prost_types::MethodDescriptorProto| Method {
        name: method.name().to_owned(),
        input: message(&file, method.input_type()),
    };
    service.method.iter().map(method).collect()
}

/// What a field is filled with.
pub enum Value {
    Bytes(Vec<u8>),
    Number(u64),
}

fn message(file: &FileDescriptorProto, name: &str) -> DescriptorProto {
    let name = name.rsplit('.').next().unwrap();
    file.message_type.iter().find(|message| message.name() == name).unwrap().clone()
}

/// A message with each of its fields as `value` says, which is asked for `MESSAGE.FIELD`.
pub fn filled(message: &DescriptorProto, value: &dyn Fn(&str) -> Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in &message.field {
        let number = u64::try_from(field.number()).unwrap();
        let content = match field.r#type() {
            Type::Message => Value::Bytes(filled(&self::message(&file(), field.type_name()), value)),
            _ => value(&format!("{}.{}", message.name(), field.name())),
        };
        match (field.r#type(), content) {
            (Type::String | Type::Bytes | Type::Message, Value::Bytes(content)) => {
                prost::encoding::encode_varint(number << 3 | 2, &mut bytes);
                prost::encoding::encode_varint(content.len() as u64, &mut bytes);
                bytes.put_slice(&content);
            }
            (Type::Uint32 | Type::Uint64 | Type::Bool | Type::Enum, Value::Number(content)) => {
                prost::encoding::encode_varint(number << 3, &mut bytes);
                prost::encoding::encode_varint(content, &mut bytes);
            }
            (kind, _) => panic!("say what stands in {} of {}: {kind:?}", field.name(), message.name()),
        }
    }
    bytes
}

/// Calls a method, `SERVICE/METHOD`, with one message, and hears one. A stream of one is no other thing than a plain call.
pub async fn call(channel: &Channel, method: &str, token: Option<&str>, message: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut request = Request::new(tokio_stream::once(message));
    if let Some(token) = token {
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(format!("/navvy.processor.v1.{method}")).unwrap();
    let mut answers = client.streaming(request, path, Plain).await?.into_inner();
    answers.message().await?.ok_or_else(|| Status::unknown("no answer"))
}

/// Messages as they are.
#[derive(Debug, Clone, Copy, Default)]
struct Plain;

impl Codec for Plain {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length).to_vec()))
    }
}

/// An answer over HTTP.
#[derive(Debug)]
pub struct Http {
    pub status: u16,
    pub head: String,
    pub body: Vec<u8>,
}

/// Sends these very bytes, `head` with its end, and reads what comes until the connection ends.
pub async fn send(people: &str, head: &str, body: &[u8]) -> Http {
    let mut stream = TcpStream::connect(people.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    // A server that refuses a request may close before it has read all of it.
    stream.write_all(body).await.ok();
    answer(stream).await
}

/// Sends the beginning of a request, and ends.
pub async fn break_off(people: &str, head: &str, body: &[u8]) -> Http {
    let mut stream = TcpStream::connect(people.strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(body).await.unwrap();
    stream.shutdown().await.unwrap();
    answer(stream).await
}

async fn answer(mut stream: TcpStream) -> Http {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    let at = answer.windows(4).position(|end| end == b"\r\n\r\n").unwrap_or(answer.len());
    let head = String::from_utf8_lossy(&answer[..at]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Http { status, head, body: answer.get(at + 4..).unwrap_or_default().to_vec() }
}

/// A plain request for `target`, with a `Content-Length` where there is a body.
pub async fn ask(people: &str, method: &str, target: &str, body: Option<&[u8]>) -> Http {
    let length = body.map(|body| format!("Content-Length: {}\r\n", body.len())).unwrap_or_default();
    let head = format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{length}\r\n");
    send(people, &head, body.unwrap_or_default()).await
}
