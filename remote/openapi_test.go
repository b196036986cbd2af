package remote

import (
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// TestOpenAPI checks that the document is one, and that it has every route.
func TestOpenAPI(t *testing.T) {
	b, err := describe()
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	n := 0
	for _, item := range doc.Paths.Map() {
		for method := range item.Operations() {
			if method != "HEAD" {
				n++
			}
		}
	}
	if want := len((&server{}).routes()); n != want {
		t.Errorf("%d operations for %d routes", n, want)
	}
	stats := doc.Paths.Value("/v1/stats").Get.Responses.Status(200).Value.Content[contentJSON].Schema.Value
	if stats.Properties["logical_bytes"] == nil && stats.Properties["logical"] == nil {
		t.Errorf("the stats have no logical bytes: %v", stats.Properties)
	}
	block := doc.Paths.Value("/v1/blocks").Get.Responses.Status(200).Value.Content[contentStream].Schema.Value
	if id := block.Properties["id"]; id == nil || !id.Value.Type.Is("string") {
		t.Errorf("the ID of a block is no string: %+v", id)
	}
}
