// Webhooks serves mutating admission webhooks for the tests of the order of webhooks, on a free port of 127.0.0.1. The path
// is the name of a webhook, and optionally what it changes in a Pod: /NAME/annotation/VALUE, /NAME/image/IMAGE or
// /NAME/secret/SECRET. The folder in the first argument receives ca.crt, then url, and then a line in calls for each call,
// with the Pod as the call found it.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	admission "k8s.io/api/admission/v1"
	core "k8s.io/api/core/v1"
)

const annotation = "acr-pull.dev/access-token"

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: webhooks FOLDER")
	}
	folder := os.Args[1]
	certificate, authority, err := selfSigned()
	if err != nil {
		log.Fatal(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		log.Fatal(err)
	}
	calls, err := os.OpenFile(filepath.Join(folder, "calls"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	for _, file := range [][2]string{{"ca.crt", string(authority)}, {"url", "https://" + listener.Addr().String()}} {
		if err := os.WriteFile(filepath.Join(folder, file[0]), []byte(file[1]), 0o600); err != nil {
			log.Fatal(err)
		}
	}
	log.Fatal(http.Serve(listener, handler(calls)))
}

func selfSigned() (tls.Certificate, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	template := x509.Certificate{
		SerialNumber:          big.NewInt(1),
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(24 * time.Hour),
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, nil, err
	}
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, authority, nil
}

func handler(calls *os.File) http.Handler {
	return http.HandlerFunc(func(writer http.ResponseWriter, request *http.Request) {
		var review admission.AdmissionReview
		var pod core.Pod
		if err := json.NewDecoder(request.Body).Decode(&review); err != nil {
			http.Error(writer, err.Error(), http.StatusBadRequest)
			return
		}
		if err := json.Unmarshal(review.Request.Object.Raw, &pod); err != nil {
			http.Error(writer, err.Error(), http.StatusBadRequest)
			return
		}
		name, change, _ := strings.Cut(strings.TrimPrefix(request.URL.Path, "/"), "/")
		patch, err := json.Marshal(changes(pod, change))
		if err != nil {
			http.Error(writer, err.Error(), http.StatusInternalServerError)
			return
		}
		if _, err := calls.WriteString(line(name, pod)); err != nil {
			http.Error(writer, err.Error(), http.StatusInternalServerError)
			return
		}
		kind := admission.PatchTypeJSONPatch
		review.Response = &admission.AdmissionResponse{UID: review.Request.UID, Allowed: true, Patch: patch, PatchType: &kind}
		writer.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(writer).Encode(review); err != nil {
			log.Print(err)
		}
	})
}

// line names the webhook and prints what the tests need of the Pod.
func line(webhook string, pod core.Pod) string {
	secrets := []string{}
	for _, secret := range pod.Spec.ImagePullSecrets {
		secrets = append(secrets, secret.Name)
	}
	return fmt.Sprintf("%s annotation=%s image=%s secrets=%s\n", webhook, pod.Annotations[annotation],
		pod.Spec.Containers[0].Image, strings.Join(secrets, ","))
}

// changes returns the JSON patch of a webhook. A second call finds its own change and does not repeat it.
func changes(pod core.Pod, change string) []map[string]any {
	field, value, _ := strings.Cut(change, "/")
	switch {
	case field == "annotation" && pod.Annotations[annotation] != value:
		annotations := maps.Clone(pod.Annotations)
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotation] = value
		return []map[string]any{{"op": "add", "path": "/metadata/annotations", "value": annotations}}
	case field == "image" && pod.Spec.Containers[0].Image != value:
		return []map[string]any{{"op": "replace", "path": "/spec/containers/0/image", "value": value}}
	case field == "secret" && !slices.Contains(pod.Spec.ImagePullSecrets, core.LocalObjectReference{Name: value}):
		secrets := append(pod.Spec.ImagePullSecrets, core.LocalObjectReference{Name: value})
		return []map[string]any{{"op": "add", "path": "/spec/imagePullSecrets", "value": secrets}}
	}
	return []map[string]any{}
}
