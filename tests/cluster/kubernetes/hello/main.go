// Command hello is the Pod of the cluster's own tests: an HTTP server on port
// 8080 that greets and logs each request; with a URL, a client that prints the
// answer.
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"
)

func main() {
	if len(os.Args) > 1 {
		get(os.Args[1])
		return
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		log.Println("asked for", r.URL.Path)
		fmt.Fprintln(w, "hello from a Pod")
	})
	log.Println("listening")
	log.Fatal(http.ListenAndServe(":8080", nil))
}

func get(url string) {
	client := http.Client{Timeout: 2 * time.Second}
	answer, err := client.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err = io.Copy(os.Stdout, answer.Body); err != nil {
		log.Fatal(err)
	}
}
