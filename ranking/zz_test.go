package ranking
import ("testing";"math/rand/v2";"time";"fmt";"syscall";"runtime")
func cpu0() time.Duration { var u syscall.Rusage; syscall.Getrusage(1,&u); return time.Duration(u.Utime.Nano()) }
func TestZZ(t *testing.T){
 runtime.LockOSThread()
 for _,n:=range []int{20000,1000000}{
  items,q:=cloud(rand.New(rand.NewPCG(5,5)),n,64,true)
  x,_:=NewIndex(items,64)
  best,all:=time.Hour,[]time.Duration{}
  list:=make([]Scored,0,10)
  N:=2000; if n>1e5 {N=60}
  c0:=cpu0()
  for i:=range N { s:=time.Now(); list,_=x.Search(list,q[i%64*64:][:64],10,nil); d:=time.Since(s); best=min(best,d); all=append(all,d)}
  fmt.Println(n,best,all[len(all)/2],"cpu",(cpu0()-c0)/time.Duration(N))
 }
 for _,flat:=range []bool{true,false} {
 items,few:=cloud(rand.New(rand.NewPCG(5,5)),20000,64,flat)
 var qs []float32
 for range 15{ qs=append(qs,few...)}
 x,_:=NewIndex(items,64)
 best:=time.Hour
  c0:=cpu0()
 for range 20 { s:=time.Now(); x.SearchBatch(Batch{Queries:qs,K:10,Threads:1}); best=min(best,time.Since(s))}
 cp:=(cpu0()-c0)/20
 fmt.Println("batch flat",flat,best,"cpu",cp, 960/cp.Seconds(),"users/s/thread", 960*20000*128/cp.Seconds()/1e9,"GF")
 }
}
func cpuAll() time.Duration { var u syscall.Rusage; syscall.Getrusage(0,&u); return time.Duration(u.Utime.Nano()) }
