// What mesos-go, unchanged, understands of an agent: its own client makes calls of the operator API, decodes the answers
// into its structures, and these are printed as one JSON object, by call. /monitor/statistics is decoded into its
// ResourceStatistics, too.
//
// usage: mesos_go http://HOST:PORT PRINCIPAL SECRET CONTAINER-ID SANDBOX
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"time"

	"github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/agent"
	"github.com/mesos/mesos-go/api/v1/lib/agent/calls"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli/httpagent"
)

// An element of /monitor/statistics.
type element struct {
	ExecutorID   string                   `json:"executor_id"`
	ExecutorName string                   `json:"executor_name"`
	FrameworkID  string                   `json:"framework_id"`
	Source       string                   `json:"source"`
	Statistics   mesos.ResourceStatistics `json:"statistics"`
}

func main() {
	url, principal, secret, id, sandbox := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	cli := httpcli.New(
		httpcli.Endpoint(url+"/api/v1"),
		httpcli.Codec(codecs.ByMediaType[codecs.MediaTypeJSON]),
		httpcli.Do(httpcli.With(httpcli.BasicAuth(principal, secret), httpcli.Timeout(time.Minute))),
	)
	sender := httpagent.NewSender(cli.Send)
	container := mesos.ContainerID{Value: id}
	timeout := time.Minute
	found := map[string]interface{}{}

	for _, call := range []*agent.Call{
		calls.GetHealth(),
		calls.GetFlags(),
		calls.GetVersion(),
		calls.GetMetrics(&timeout),
		calls.GetLoggingLevel(),
		calls.GetState(),
		calls.GetContainers(),
		calls.GetFrameworks(),
		calls.GetExecutors(),
		calls.GetTasks(),
		calls.GetAgent(),
		calls.ListFiles(sandbox),
		calls.ReadFileWithLength(sandbox+"/stdout", 0, 4096),
	} {
		found[call.Type.String()] = decoded(sender, call)
	}
	found["monitor_statistics"] = statistics(url + "/monitor/statistics")
	found["unknown"] = refused(sender, calls.KillNestedContainer(mesos.ContainerID{Value: "unknown"}))
	found["empty"] = refused(sender, calls.SetLoggingLevel(0, 0))

	// Its output to the end, which the kill brings about.
	output := sent(sender, calls.AttachContainerOutput(container))
	text := map[string]string{}
	for killed := false; ; {
		var record agent.ProcessIO
		if err := output.Decode(&record); err == io.EOF {
			break
		} else if err != nil {
			log.Fatal("output: ", err)
		}
		if data := record.Data; data != nil {
			text[data.Type.String()] += string(data.Data)
		}
		if !killed {
			killed = true
			if message := refused(sender, calls.KillNestedContainer(container)); message != "" {
				log.Fatal("kill: ", message)
			}
		}
	}
	output.Close()
	found["output"] = text
	found["WAIT_NESTED_CONTAINER"] = decoded(sender, calls.WaitNestedContainer(container))

	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		log.Fatal(err)
	}
}

func sent(sender calls.Sender, call *agent.Call) mesos.Response {
	response, err := sender.Send(context.Background(), calls.NonStreaming(call))
	if err != nil {
		log.Fatal(call.Type, ": ", err)
	}
	return response
}

func decoded(sender calls.Sender, call *agent.Call) agent.Response {
	response := sent(sender, call)
	defer response.Close()
	var answer agent.Response
	if err := response.Decode(&answer); err != nil {
		log.Fatal(call.Type, ": ", err)
	}
	return answer
}

// The error that the client makes of an answer; empty if it makes none.
func refused(sender calls.Sender, call *agent.Call) string {
	response, err := sender.Send(context.Background(), calls.NonStreaming(call))
	if response != nil {
		response.Close()
	}
	if err != nil {
		return fmt.Sprint(err)
	}
	return ""
}

func statistics(url string) (elements []element) {
	response, err := http.Get(url)
	if err != nil {
		log.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&elements); err != nil {
		log.Fatal(url, ": ", err)
	}
	return
}
