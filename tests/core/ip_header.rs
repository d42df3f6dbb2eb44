//! What relayed packets take over from the IP header they came with: RFC 8656 §14, §15.

use turnkey::turn::IpFields;

use crate::lab::{Client, Lab, PEER, channel_data};

const HERE: &str = "192.0.2.9:40000";
const THERE: &str = "192.0.2.10:40000";

fn marked(tos: u8) -> IpFields {
    IpFields { tos }
}

#[test]
fn rfc8656_14_dscp_and_ecn_outlive_the_relay_in_both_directions() {
    let mut lab = Lab::new();
    let client = Client::new(&mut lab, HERE);
    let relayed = client.allocate(&mut lab);
    client.bind(&mut lab, 0x4000, PEER);
    for tos in [0, 0xB8, 0x03, 0xFF] {
        lab.ip = marked(tos);
        client.send(&mut lab, PEER, b"x");
        assert_eq!(lab.left_with.take(), Some((marked(tos), false)), "Send");
        lab.client_sends(client.path, &channel_data(0x4000, b"x"));
        assert_eq!(lab.left_with.take(), Some((marked(tos), false)), "ChannelData");
        lab.peer_sends(relayed, PEER, b"x");
        assert_eq!(lab.left_with.take(), Some((marked(tos), false)), "from the peer");
    }
}

#[test]
fn rfc8656_14_dscp_and_ecn_go_from_client_to_client() {
    let mut lab = Lab::new();
    let (one, two) = (Client::new(&mut lab, HERE), Client::new(&mut lab, THERE));
    let (first, second) = (one.allocate(&mut lab), two.allocate(&mut lab));
    one.permit(&mut lab, &second.to_string());
    two.permit(&mut lab, &first.to_string());
    lab.ip = marked(0xB9);
    one.send(&mut lab, &second.to_string(), b"x");
    assert_eq!(lab.left_with.take(), Some((marked(0xB9), false)));
}
