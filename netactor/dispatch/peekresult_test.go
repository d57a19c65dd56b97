package dispatch

import (
	"testing"

	"github.com/coppice-go/coppice/netactor"
)

// proxyV2 is what version 2 of the PROXY protocol begins with.
const proxyV2 = "\r\n\r\n\x00\r\nQUIT\n"

func TestPeekRead(t *testing.T) {
	if s := readPeek(netactor.Peek{Proxy: true}, []byte(proxyV2+"\x20\x00\x00\x00"), nil); s.verdict != netactor.PeekUnkeyed {
		t.Errorf("LOCAL, which names nobody: %+v", s)
	}
	tlv := proxyV2 + "\x21\x11\x00\x12" + "\xc0\x00\x02\x01\xc6\x33\x64\x07\x10\x00\x01\xbb" // and six bytes that have not come
	if s := readPeek(netactor.Peek{Proxy: true, By: netactor.PeekBytes, Bytes: 2}, []byte(tlv), nil); s.verdict != netactor.PeekMore || !s.peer.IsValid() {
		t.Errorf("bytes behind a header that is not whole: %+v", s)
	}
}
