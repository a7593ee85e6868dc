// Command app is all that the private test images hold: it says that it runs, and waits to be stopped. As `app once`, for
// an init container, it does not wait.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("running from a private image")
	if len(os.Args) > 1 && os.Args[1] == "once" {
		return
	}
	<-stop
}
