// A framework on mesos-go: one task, killed when it runs and a line is read.
//
// usage: mesos_go_framework MASTER NAME PORT COMMAND MEDIA-TYPE; each status is a line of JSON in the output
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/mesos/mesos-go/api/v1/lib"
	"github.com/mesos/mesos-go/api/v1/lib/backoff"
	"github.com/mesos/mesos-go/api/v1/lib/encoding"
	"github.com/mesos/mesos-go/api/v1/lib/encoding/codecs"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/callrules"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/controller"
	"github.com/mesos/mesos-go/api/v1/lib/extras/scheduler/eventrules"
	"github.com/mesos/mesos-go/api/v1/lib/extras/store"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli"
	"github.com/mesos/mesos-go/api/v1/lib/httpcli/httpsched"
	"github.com/mesos/mesos-go/api/v1/lib/resources"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/calls"
	"github.com/mesos/mesos-go/api/v1/lib/scheduler/events"
)

func main() {
	master, name, command := os.Args[1], os.Args[2], os.Args[4]
	port, err := strconv.ParseUint(os.Args[3], 10, 16)
	if err != nil {
		log.Fatal(err)
	}
	ctx, done := context.WithCancel(context.Background())
	id := store.NewInMemorySingleton()
	known := store.GetIgnoreErrors(id)
	caller := callrules.New(callrules.WithFrameworkID(known)).Caller(httpsched.NewCaller(httpcli.New(
		httpcli.Endpoint("http://"+master+"/api/v1/scheduler"),
		httpcli.Codec(codecs.ByMediaType[encoding.MediaType(os.Args[5])]),
	)))
	call := func(call *scheduler.Call) {
		if err := calls.CallNoData(ctx, caller, call); err != nil {
			log.Fatal(call.Type, ": ", err)
		}
	}
	task := mesos.TaskInfo{
		Name:    name,
		TaskID:  mesos.TaskID{Value: name},
		Command: &mesos.CommandInfo{Value: &command},
		Resources: []mesos.Resource{
			resources.NewCPUs(0.1).Resource,
			resources.NewMemory(32).Resource,
			resources.Build().Name(resources.NamePorts).Ranges(resources.BuildRanges().Span(port, port).Ranges).Resource,
		},
	}
	launched, output := false, json.NewEncoder(os.Stdout)
	handle := eventrules.HandleF(func(ctx context.Context, event *scheduler.Event) error {
		for _, offer := range event.GetOffers().GetOffers() {
			if launched {
				call(calls.Decline(offer.ID))
				continue
			}
			launched = true
			task.AgentID = offer.AgentID
			call(calls.Accept(calls.OfferOperations{calls.OpLaunch(task)}.WithOffers(offer.ID)))
		}
		if event.GetType() == scheduler.Event_UPDATE {
			state := event.GetUpdate().Status.GetState()
			if err := output.Encode(map[string]string{"state": state.String()}); err != nil {
				log.Fatal(err)
			}
			if state == mesos.TASK_KILLED {
				call(&scheduler.Call{Type: scheduler.Call_TEARDOWN})
				done()
			}
		}
		return nil
	})
	go func() {
		bufio.NewReader(os.Stdin).ReadString('\n')
		call(calls.Kill(name, ""))
	}()
	checkpoint, timeout := true, float64(600)
	framework := &mesos.FrameworkInfo{User: "root", Name: name, Checkpoint: &checkpoint, FailoverTimeout: &timeout}
	var handler events.Handler = eventrules.New(
		controller.LiftErrors(), controller.TrackSubscription(id, time.Hour), controller.AckStatusUpdates(caller), handle,
	)
	controller.Run(
		ctx, framework, caller,
		controller.WithEventHandler(handler),
		controller.WithFrameworkID(known),
		controller.WithRegistrationTokens(backoff.Notifier(100*time.Millisecond, time.Second, ctx.Done())),
		controller.WithSubscriptionTerminated(func(err error) { log.Print("not subscribed: ", err) }),
	)
}
