package remote

import (
	"bytes"
	"encoding"
	"encoding/json"
	goflag "flag" // package remote has a flag of its own
	"fmt"
	"net/http"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3gen"

	"github.com/quarxtor/quarxfs/remote/rawjson"
	"github.com/quarxtor/quarxfs/store/config"
)

var update = goflag.Bool("update", false, "write openapi.json")

// TestOpenAPI checks that the document is that of the routes, and that it has every one; -update
// writes it.
func TestOpenAPI(t *testing.T) {
	b, err := newDocument()
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("openapi.json", b, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(b, openAPIDocument) {
		t.Error("openapi.json is not what the routes are: go test ./remote -run TestOpenAPI -update")
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

// newDocument makes the OpenAPI document of the table of routes.
func newDocument() ([]byte, error) {
	d := &description{
		gen: openapi3gen.NewGenerator(openapi3gen.UseAllExportedFields(), openapi3gen.SchemaCustomizer(asJSON)),
		doc: &openapi3.T{
			OpenAPI: "3.0.3",
			Info: &openapi3.Info{
				Title: "QuarXFS", Version: "1",
				Description: "The store of a QuarXFS node. docs/http-api.md tells more, also of names that are not UTF-8.",
			},
			Paths: openapi3.NewPaths(),
			Components: &openapi3.Components{
				Schemas:         openapi3.Schemas{},
				SecuritySchemes: openapi3.SecuritySchemes{"token": {Value: openapi3.NewSecurityScheme().WithType("http").WithScheme("bearer")}},
			},
			Security: openapi3.SecurityRequirements{{"token": {}}},
		},
	}
	var err error
	if d.failure, err = d.schema(envelope{}); err != nil {
		return nil, err
	}
	for _, r := range (&server{}).routes() {
		if err := d.add(&r); err != nil {
			return nil, fmt.Errorf("%s: %w", r.pattern, err)
		}
	}
	b, err := json.Marshal(d.doc)
	return append(b, '\n'), err
}

type description struct {
	gen     *openapi3gen.Generator
	doc     *openapi3.T
	failure *openapi3.SchemaRef
}

const walksText = "It walks through the store, and ends with too_costly where that takes too much time or memory."

func (d *description) add(r *route) error {
	method, path, _ := strings.Cut(r.pattern, " ")
	path = strings.ReplaceAll(path, "...}", "}")
	op := openapi3.NewOperation()
	op.Summary = r.summary
	scopes := string(r.need.Scope)
	if r.need.Append {
		scopes += " or " + string(config.ScopeAppend)
	}
	op.Description = fmt.Sprintf("Needs a token with the scope %s.", scopes)
	if r.need.Walks {
		op.Description += " " + walksText
	}
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			op.AddParameter(openapi3.NewPathParameter(strings.TrimSuffix(name, "}")).WithSchema(openapi3.NewStringSchema()))
		}
	}
	for _, p := range r.query {
		schema, err := d.schema(p.of)
		if err != nil {
			return err
		}
		param := openapi3.NewQueryParameter(p.name).WithDescription(p.about)
		param.Schema = schema
		op.AddParameter(param)
	}
	if r.in.mime != "" {
		body, err := d.content(r.in)
		if err != nil {
			return err
		}
		op.RequestBody = &openapi3.RequestBodyRef{Value: openapi3.NewRequestBody().WithRequired(true).WithContent(body)}
	}
	answer, err := d.content(r.out)
	if err != nil {
		return err
	}
	about := "Done"
	if r.out.mime == contentStream {
		about = `A value a line, then "{}"; or a last line with an error`
	}
	op.AddResponse(http.StatusOK, openapi3.NewResponse().WithDescription(about).WithContent(answer))
	op.Responses.Set("default", &openapi3.ResponseRef{Value: openapi3.NewResponse().WithDescription("Failed").
		WithContent(openapi3.NewContentWithSchemaRef(d.failure, []string{contentJSON}))})
	d.doc.AddOperation(path, method, op)
	if r.out.mime == contentBytes && method == http.MethodGet {
		head := *op
		head.Summary = "What GET would answer, without a body"
		head.Responses = openapi3.NewResponses(openapi3.WithStatus(http.StatusOK, &openapi3.ResponseRef{Value: openapi3.NewResponse().WithDescription("It is there")}),
			openapi3.WithName("default", openapi3.NewResponse().WithDescription("Failed")))
		d.doc.AddOperation(path, http.MethodHead, &head)
	}
	return nil
}

func (d *description) content(c content) (openapi3.Content, error) {
	if c.of == nil {
		return openapi3.NewContentWithSchema(openapi3.NewStringSchema().WithFormat("binary"), []string{c.mime}), nil
	}
	schema, err := d.schema(c.of)
	return openapi3.NewContentWithSchemaRef(schema, []string{c.mime}), err
}

func (d *description) schema(v any) (*openapi3.SchemaRef, error) {
	return d.gen.NewSchemaRefForValue(v, d.doc.Components.Schemas)
}

var textMarshaler = reflect.TypeFor[encoding.TextMarshaler]()

// asJSON has what writes itself as text be a string, and gives strings the members that
// rawjson may add.
func asJSON(_ string, t reflect.Type, _ reflect.StructTag, schema *openapi3.Schema) error {
	// IDs, times and scopes are arrays and structs to reflection, and strings in JSON.
	if t.Implements(textMarshaler) && !schema.Type.Is(openapi3.TypeString) {
		*schema = *openapi3.NewStringSchema()
	}
	if t.Kind() != reflect.Struct {
		return nil
	}
	for _, f := range reflect.VisibleFields(t) {
		key, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		raw := openapi3.NewBytesSchema()
		raw.Description = "The bytes of " + key + " if it is not UTF-8; " + key + " is percent-encoded then"
		switch {
		case schema.Properties[key] == nil:
			continue
		case f.Type == reflect.TypeFor[[]string]():
			raw = openapi3.NewArraySchema().WithItems(raw)
		case f.Type != reflect.TypeFor[string]() && f.Type != reflect.TypeFor[*string]():
			continue
		}
		schema.Properties[key+rawjson.Suffix] = openapi3.NewSchemaRef("", raw)
	}
	return nil
}
