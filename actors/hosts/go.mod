// Trees on several hosts, apart from the go.mod of the library, so that a program on one host does not
// name what they need.
module github.com/coppice-go/coppice/actors/hosts

go 1.26.0

require github.com/coppice-go/coppice v0.0.0-20261130021702-a514eccb2d68

require (
	github.com/fxamacker/cbor/v2 v2.10.0 // indirect
	github.com/x448/float16 v0.8.4 // indirect
	golang.org/x/sys v0.49.0 // indirect
)

replace github.com/coppice-go/coppice => ../..
