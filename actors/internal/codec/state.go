package codec

import (
	"math"
	"reflect"

	"github.com/fxamacker/cbor/v2"
)

// stateDecoding decodes what EncodeState wrote, in this or in another version of the program:
// fields that this version does not know are skipped, those that are missing stay zero.
var stateDecoding = must(cbor.DecOptions{
	MaxNestedLevels:  maxNesting,
	MaxArrayElements: math.MaxInt32,
	MaxMapPairs:      math.MaxInt32,
	DupMapKey:        cbor.DupMapKeyEnforcedAPF,
	UTF8:             cbor.UTF8DecodeInvalid, // an id may come from a peer
}.DecMode())

var stateEncoding = must(cbor.EncOptions{Sort: cbor.SortBytewiseLexical}.EncMode())

// EncodeState encodes the state of a system for the image of the program that replaces this one.
func EncodeState(v any) ([]byte, error) { return stateEncoding.Marshal(v) }

// StateDecoder returns a function that decodes into a *T. What it may allocate is bounded as for a
// message.
func StateDecoder[T any]() func(b []byte) (*T, error) {
	unmarshal := decoderOf(reflect.TypeFor[T](), stateDecoding)
	return func(b []byte) (*T, error) {
		v := new(T)
		return v, unmarshal(b, v)
	}
}
