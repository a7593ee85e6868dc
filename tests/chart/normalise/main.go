// Normalise reads manifests and prints them as JSON, sorted, without what Helm and kustomize each add of their own: so that
// those of the chart and those of kustomize can be compared. With -kinds it prints only what a bare API server knows.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"regexp"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

var (
	known = flag.Bool("kinds", false, "leave out kinds of cert-manager and the Prometheus operator, and change nothing else")
	// The name of kustomize's ConfigMap holds a hash.
	hash = regexp.MustCompile(`"acr-pull-webhook-settings-[a-z0-9]{10}"`)
	// The image's tag is whoever deploys' in kustomize, and the version in the chart.
	tag = regexp.MustCompile(`"image":"acr-pull-webhook(:[^"]*)?"`)
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	var lines []string
	for document := range strings.SplitSeq("\n"+string(input), "\n---") {
		var object map[string]any
		if err := yaml.Unmarshal([]byte(document), &object); err != nil {
			log.Fatalf("%v in:\n%s", err, document)
		}
		if len(object) == 0 {
			continue
		}
		metadata := object["metadata"].(map[string]any)
		version, kind := object["apiVersion"].(string), object["kind"].(string)
		if *known {
			if strings.HasPrefix(version, "cert-manager.io/") || strings.HasPrefix(version, "monitoring.coreos.com/") {
				continue
			}
		} else {
			// The namespace of a release is made by `helm install --create-namespace`.
			if kind == "Namespace" {
				continue
			}
			clean(metadata, kind)
			if template := child(child(object, "spec"), "template"); template != nil {
				clean(child(template, "metadata"), kind)
			}
		}
		text, err := json.Marshal(object)
		if err != nil {
			log.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s", version, kind, metadata["name"], text))
	}
	slices.Sort(lines)
	for _, line := range lines {
		text := line[strings.Index(line, "{"):]
		if *known {
			fmt.Printf("---\n%s\n", text)
			continue
		}
		text = hash.ReplaceAllString(text, `"acr-pull-webhook-settings"`)
		text = tag.ReplaceAllString(text, `"image":"acr-pull-webhook"`)
		var object any
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			log.Fatal(err)
		}
		pretty, err := json.MarshalIndent(object, "", "  ")
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(pretty))
	}
}

func child(object map[string]any, name string) map[string]any {
	found, _ := object[name].(map[string]any)
	return found
}

// clean takes away what only Helm writes.
func clean(metadata map[string]any, kind string) {
	labels, annotations := child(metadata, "labels"), child(metadata, "annotations")
	for _, label := range []string{"helm.sh/chart", "app.kubernetes.io/instance", "app.kubernetes.io/version", "app.kubernetes.io/managed-by"} {
		delete(labels, label)
	}
	if kind == "CustomResourceDefinition" {
		delete(labels, "app.kubernetes.io/name")
	}
	for _, annotation := range []string{"helm.sh/resource-policy", "acr-pull.dev/settings"} {
		delete(annotations, annotation)
	}
	for _, name := range []string{"labels", "annotations"} {
		if found, there := metadata[name].(map[string]any); there && len(found) == 0 {
			delete(metadata, name)
		}
	}
}
