//! A DNS server on port 53 of the loopback address, whose reply to a question depends on the name.

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType, rdata::A},
};
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    thread,
};

const ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 53);
const TTL_SECONDS: u32 = 5;
/// The maximum size of a message over UDP without EDNS (RFC 1035, section 4.2.1).
const MAX_UDP_BYTES: usize = 512;

/// Serves until the process ends.
pub fn serve() {
    let udp = UdpSocket::bind(ADDRESS).unwrap();
    let tcp = TcpListener::bind(ADDRESS).unwrap();
    thread::spawn(move || {
        let mut question = [0; MAX_UDP_BYTES];
        loop {
            let (length, client) = udp.recv_from(&mut question).unwrap();
            udp.send_to(&reply(&question[..length], true), client).unwrap();
        }
    });
    thread::spawn(move || {
        for client in tcp.incoming() {
            // The client closes the connection after the last reply.
            let _ = answer_all(client.unwrap());
        }
    });
}

/// Over TCP, two bytes with its length precede each message (RFC 1035, section 4.2.2).
fn answer_all(mut client: TcpStream) -> io::Result<()> {
    loop {
        let mut length = [0; 2];
        client.read_exact(&mut length)?;
        let mut question = vec![0; u16::from_be_bytes(length).into()];
        client.read_exact(&mut question)?;
        let reply = reply(&question, false);
        client.write_all(&u16::try_from(reply.len()).unwrap().to_be_bytes())?;
        client.write_all(&reply)?;
    }
}

fn reply(question: &[u8], is_udp: bool) -> Vec<u8> {
    let asked = Message::from_vec(question).unwrap();
    let query = asked.queries()[0].clone();
    let name = query.name().to_ascii().to_lowercase();
    let is_ipv4 = query.query_type() == RecordType::A;
    let (code, addresses) = match name.trim_end_matches(".example.") {
        "aaaa-without-records" | "service.app.svc.cluster.local." => (ResponseCode::NoError, 1),
        "truncated" => (ResponseCode::NoError, 60),
        "aaaa-is-nxdomain" | "aaaa-is-servfail" | "aaaa-is-refused" | "aaaa-is-notimp" if is_ipv4 => {
            (ResponseCode::NoError, 1)
        }
        "aaaa-is-servfail" | "servfail" => (ResponseCode::ServFail, 0),
        "aaaa-is-refused" => (ResponseCode::Refused, 0),
        "aaaa-is-notimp" => (ResponseCode::NotImp, 0),
        _ => (ResponseCode::NXDomain, 0),
    };
    let mut reply = Message::error_msg(asked.id(), asked.op_code(), code);
    reply.set_recursion_available(true);
    reply.set_recursion_desired(true);
    let owner = query.name().clone();
    reply.add_query(query);
    if is_ipv4 {
        // Equal records would be one record.
        let records = (1..=addresses).map(|n| RData::A(A::new(192, 0, 2, n)));
        reply.add_answers(records.map(|data| Record::from_rdata(owner.clone(), TTL_SECONDS, data)));
    }
    if is_udp && reply.to_vec().unwrap().len() > MAX_UDP_BYTES {
        reply = reply.truncate();
    }
    reply.to_vec().unwrap()
}
